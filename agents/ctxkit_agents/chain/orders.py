"""Orders: in which workers hand units on, one after the other or as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.text.score import relevance
from ctxkit_agents.chain.evidence import Quote
from ctxkit_agents.chain.source import Chunk, Source
from ctxkit_agents.chain.workers import Workers
from ctxkit_agents.errors import WorkersFailed
from ctxkit_agents.runtime.job import Job


@dataclass(frozen=True)
class Passed:
    """What reaches the manager. unread: chunks of which nothing is in the unit."""

    unit: str
    quotes: tuple[Quote, ...]
    unread: tuple[Chunk, ...]


async def in_sequence(job: Job, workers: Workers, chunks: Sequence[Chunk], *, early_exit: bool = False) -> Passed:
    """Each worker merges its chunk into the unit of the one before. The chunks are read in the order given.

    early_exit: the first worker that says that the unit answers is the last to read.
    """
    unit, quotes, read = "", list[Quote](), set[int]()
    for chunk in chunks:
        note = await workers.read(job, chunk, unit)
        if note is None:
            continue
        unit = note.unit
        quotes += note.quotes
        read.add(chunk.number)
        if early_exit and note.answered and unit:
            break
    return _passed(unit, quotes, chunks, read)


async def in_a_tree(job: Job, workers: Workers, chunks: Sequence[Chunk], *, merge: int, at_once: int) -> Passed:
    """All workers read at once; then `merge` neighbouring units at a time become one, until one is left."""
    notes = await job.all([workers.read(job, chunk, "") for chunk in chunks], at_once=at_once)
    found = [(chunk, note) for chunk, note in zip(chunks, notes, strict=True) if note is not None]
    units = [note.unit for _, note in found if note.unit]
    level = 1
    while len(units) > 1:
        groups = [units[start : start + merge] for start in range(0, len(units), merge)]
        merged = [_merged(job, workers, group, f"merge-{level}-{i}") for i, group in enumerate(groups, 1)]
        units = await job.all(merged, at_once=at_once)
        level += 1
    quotes = [quote for _, note in found for quote in note.quotes]
    return _passed("".join(units), quotes, chunks, {chunk.number for chunk, _ in found})


async def _merged(job: Job, workers: Workers, units: Sequence[str], step: str) -> str:
    return units[0] if len(units) == 1 else await workers.merge(job, units, step)


def _passed(unit: str, quotes: Sequence[Quote], chunks: Sequence[Chunk], read: set[int]) -> Passed:
    if not unit and not quotes:
        raise WorkersFailed("no worker wrote anything down", chunks=tuple(sorted(chunk.number for chunk in chunks)))
    unread = sorted((chunk for chunk in chunks if chunk.number not in read), key=lambda chunk: chunk.number)
    return Passed(unit, tuple(quotes), tuple(unread))


def best_first(source: Source, chunks: Sequence[Chunk], question: str) -> list[Chunk]:
    """The chunks by BM25 against the question; equals in the order of the source."""
    scores = relevance([source.text[chunk.start : chunk.end] for chunk in chunks], question)
    return [chunks[i] for i in sorted(range(len(chunks)), key=lambda i: (-scores[i], i))]
