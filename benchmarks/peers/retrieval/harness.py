"""Builds an index of given token vectors and measures its searches. Knows no peer, imports numpy only.

    <python of the peer> <adapter>.py METHOD GIVEN_FOLDER RESULTS.jsonl quick|full

Result lines: first {"build": {...}}, then one {"setting", "ms", "wall_ms", "ids"} per setting, last {"peak_bytes"}.
Times are of this process with all its threads; a round asks every query once, one at a time.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

K = 10
WARM_QUERIES = 10
ROUNDS, ROUND_SECONDS = 5, 12.0  # no further round where the earlier ones took so long

Setting = dict[str, Any]


class Query(NamedTuple):
    """vectors: float32 [tokens, dims]. ids: int32 [tokens]."""

    vectors: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Given:
    """values: float32 [tokens, dims], of length 1. offsets: int64 [documents + 1]. token_ids: int32 [tokens]."""

    folder: Path
    values: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    queries: list[Query]

    @cached_property
    def owners(self) -> np.ndarray:
        """int64 [tokens]: the document of each."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def document(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


class Index(NamedTuple):
    """search: (query, **setting) -> the K best documents. nbytes: on disk.

    beside: bytes that a search reads and that are not in nbytes.
    """

    search: Callable[..., Sequence[int] | np.ndarray]
    nbytes: int
    beside: int = 0


class Method(NamedTuple):
    """build: the vectors and an empty folder -> an index. quick: how many of the settings a quick run takes."""

    build: Callable[[Given, Path], Index]
    settings: Sequence[Setting]
    quick: int = 2


def main(methods: Mapping[str, Method]) -> None:
    name, folder, results, size = sys.argv[1:5]
    method, given = methods[name], load(Path(folder))
    chosen = method.settings if size == "full" else spread(method.settings, method.quick)
    with open(results, "w", encoding="utf-8") as out, tempfile.TemporaryDirectory(dir=folder) as scratch:
        for line in measured(method, given, Path(scratch), chosen):
            out.write(json.dumps(line) + "\n")
            out.flush()


def load(folder: Path) -> Given:
    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy")

    vectors, ids, offsets = array("queries"), array("query_ids"), array("query_offsets")
    queries = [Query(vectors[a:b], ids[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    return Given(folder, array("documents"), array("offsets"), array("token_ids"), queries)


def spread(settings: Sequence[Setting], count: int) -> list[Setting]:
    return [settings[i] for i in np.unique(np.linspace(0, len(settings) - 1, count).astype(int))]


def measured(method: Method, given: Given, scratch: Path, settings: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    started = time.process_time()
    index = method.build(given, scratch)
    seconds = time.process_time() - started
    tokens = len(given.values)
    yield {
        "build": {
            "cpu_seconds": seconds,
            "bytes_per_token": index.nbytes / tokens,
            "beside_per_token": index.beside / tokens,
            "peak_bytes": peak_bytes(),
        }
    }
    for setting in settings:
        yield {"setting": setting, **timed(index, given.queries, setting)}
    yield {"peak_bytes": peak_bytes()}


def timed(index: Index, queries: Sequence[Query], setting: Setting) -> dict[str, Any]:
    for query in queries[:WARM_QUERIES]:
        index.search(query, **setting)
    ids: list[list[int]] = []
    cpu: list[float] = []
    wall: list[float] = []
    while len(cpu) < ROUNDS and sum(cpu) < ROUND_SECONDS:
        cpu_started, wall_started = time.process_time(), time.perf_counter()
        found = [index.search(query, **setting) for query in queries]
        cpu.append(time.process_time() - cpu_started)
        wall.append(time.perf_counter() - wall_started)
        ids = ids or [[int(document) for document in best[:K]] for best in found]
    scale = 1000 / len(queries)
    return {"ms": min(cpu) * scale, "wall_ms": min(wall) * scale, "ids": ids}


def peak_bytes() -> int:
    """Of this process's memory. Not getrusage's where it can be helped: on Linux that begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
