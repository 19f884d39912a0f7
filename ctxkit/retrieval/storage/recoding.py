"""Coding what came since: by the codebook that is there, or by a new one when the collection has outgrown it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector.clustering import default_centroids
from ctxkit.retrieval.multivector.codebook import Codebook
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit.retrieval.multivector.part import CodedPart, token_places
from ctxkit.retrieval.storage.files import ArrayFolder
from ctxkit.retrieval.storage.vectors import (
    CODEBOOK,
    PART,
    Block,
    FileRow,
    chosen,
    coded,
    files_of,
    joined,
    live_numbers,
    uncoded,
)
from ctxkit_kernels import best_kernels

_OUTGROWN = 4  # times the tokens that the codebook was trained on
_DRIFTED = 1.5  # times their mean squared distance from the centroids
_JOINED = 2  # a part is joined with what comes after unless it is larger by this factor
_TRAINING_TOKENS = 1 << 21
_BLOCK_DOCUMENTS = 1 << 13

Blocks = Callable[[], Iterator[Block]]


@dataclass(frozen=True)
class Recoded:
    """What takes the place of the tail and of the files `released`.

    codebook: None where the old one goes on. part: the last part from now on, None where no document is left for it.
    numbers: int64, of its documents.
    """

    codebook: Codebook | None
    part: CodedPart | None
    numbers: np.ndarray
    released: list[FileRow]


def recoded(connection: sqlite3.Connection, files: ArrayFolder, options: BuildOptions, *, everything: bool) -> Recoded:
    """The tail coded, dead documents left out. everything: together with all that is coded already."""
    state = _Coded.read(connection, files)
    tail = [chosen(block, live_numbers(connection, block.numbers)) for block in uncoded(connection, files)]
    tokens = sum(len(block.vectors.values) for block in tail)
    if state is None or state.tokens + tokens > _OUTGROWN * state.codebook.tokens:
        return _anew(connection, files, options, state, tail)
    part, drift = _encoded(state.codebook, tail, options)
    if drift > _DRIFTED:
        return _anew(connection, files, options, state, tail)
    first = 0 if everything else _first_joined(state.parts, tokens)
    parts, kept, numbers = list(state.parts[first:]), state.alive[first:], state.numbers[first:]
    if part is not None:
        parts.append(part)
        kept.append(np.arange(len(part)))
        numbers.append(np.concatenate([block.numbers for block in tail]))
    released = files_of(connection, PART)[first:]
    if not any(map(len, numbers)):
        return Recoded(None, None, np.zeros(0, np.int64), released)
    return Recoded(None, CodedPart.joined(state.codebook, parts, kept), np.concatenate(numbers), released)


@dataclass(frozen=True)
class _Coded:
    """What is coded already. alive, numbers: of each part, the places of its living documents and their numbers."""

    codebook: Codebook
    parts: tuple[CodedPart, ...]
    alive: list[np.ndarray]
    numbers: list[np.ndarray]

    @property
    def tokens(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def live_tokens(self) -> int:
        return sum(int(part.counts[own].sum()) for part, own in zip(self.parts, self.alive, strict=True))

    @classmethod
    def read(cls, connection: sqlite3.Connection, files: ArrayFolder) -> _Coded | None:
        found = coded(connection, files)
        if found is None:
            return None
        index, numbers = found
        split = np.split(numbers, index.starts[1:-1])
        alive = [np.flatnonzero(live_numbers(connection, own)) for own in split]
        live = [own[kept] for own, kept in zip(split, alive, strict=True)]
        return cls(index.codebook, index.parts, alive, live)

    def blocks(self) -> Iterator[Block]:
        """The living documents, some at a time, with vectors as they are known."""
        for part, alive, numbers in zip(self.parts, self.alive, self.numbers, strict=True):
            for at in range(0, len(alive), _BLOCK_DOCUMENTS):
                own = alive[at : at + _BLOCK_DOCUMENTS]
                offsets = np.concatenate([[0], np.cumsum(part.counts[own])]).astype(np.int64)
                codes = part.tokens.codes[token_places(part.tokens.offsets, own)]
                vectors = Vectors(part.values(self.codebook, own), offsets)
                yield Block(numbers[at : at + _BLOCK_DOCUMENTS], vectors, self.codebook.token_ids(codes))


def _anew(
    connection: sqlite3.Connection,
    files: ArrayFolder,
    options: BuildOptions,
    state: _Coded | None,
    tail: list[Block],
) -> Recoded:
    """Everything by a new codebook."""

    def blocks() -> Iterator[Block]:
        yield from state.blocks() if state is not None else ()
        yield from tail

    total = sum(len(block.vectors.values) for block in tail) + (state.live_tokens if state is not None else 0)
    if not total:
        return Recoded(None, None, np.zeros(0, np.int64), files_of(connection, CODEBOOK, PART))
    sample = _sample(blocks, total, options.seed)
    wanted = replace(options, centroids=options.centroids or default_centroids(total))
    trained, _ = Codebook.train(sample.vectors.values, sample.token_ids, wanted)
    codebook = replace(trained, tokens=total)
    parts = [_part(codebook, block, options)[0] for block in blocks()]
    whole = CodedPart.joined(codebook, parts, [np.arange(len(part)) for part in parts])
    numbers = np.concatenate([*(state.numbers if state is not None else ()), *(block.numbers for block in tail)])
    return Recoded(codebook, whole, numbers, files_of(connection, CODEBOOK, PART))


def _sample(blocks: Blocks, total: int, seed: int) -> Block:
    """All documents, or so many of them that they have about `_TRAINING_TOKENS`."""
    if total <= _TRAINING_TOKENS:
        return joined(list(blocks()))
    rng = np.random.default_rng(seed)
    share = _TRAINING_TOKENS / total
    return joined([chosen(block, rng.random(len(block.numbers)) < share) for block in blocks()])


def _encoded(codebook: Codebook, tail: list[Block], options: BuildOptions) -> tuple[CodedPart | None, float]:
    """The tail by a codebook that was not made for it, and how far it lies from its centroids."""
    if not any(len(block.numbers) for block in tail):
        return None, 1.0
    return _part(codebook, joined(tail), options)


def _part(codebook: Codebook, block: Block, options: BuildOptions) -> tuple[CodedPart, float]:
    codes = codebook.assign(block.vectors.values, block.token_ids)
    part = CodedPart.encode(best_kernels(), codebook, block.vectors, codes, keep_rows=options.refine)
    return part, codebook.drift(block.vectors.values, codes)


def _first_joined(parts: tuple[CodedPart, ...], tokens: int) -> int:
    """The first part that is joined with `tokens` more: so sizes fall, and parts stay few."""
    first = len(parts)
    while first and parts[first - 1].count <= _JOINED * tokens:
        first -= 1
        tokens += parts[first].count
    return first
