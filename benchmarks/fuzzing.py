"""Runs seeds in chunks, on one process or on several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import TypeVar

Outcome = TypeVar("Outcome")


def run_chunks(run: Callable[[range], Outcome], seeds: range, size: int, jobs: int) -> Iterator[Outcome]:
    """`run` of each chunk of `size` seeds, in their order."""
    chunks = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    if jobs == 1 or len(chunks) == 1:
        yield from map(run, chunks)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(run, chunks)
