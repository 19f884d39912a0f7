"""Dense search: exact inner products over the vectors of a snapshot. One class per engine, one face for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ctxkit.errors import MissingExtra
from ctxkit.retrieval.fusion import Run, best

_DECIMALS = 6  # what float32 sums agree on, whatever the order of summation; makes ties stable
_BLOCK_ROWS = 1 << 15


@dataclass(frozen=True)
class RaggedRows:
    """Vectors of n chunks, where they lie: chunk i owns `counts[i]` rows from `rows[i]` of segment `segments[i]`.

    mapped: segment number -> float32 [rows, dims].
    segments, rows, counts: int64 [n].
    """

    mapped: dict[int, np.ndarray]
    segments: np.ndarray
    rows: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """Rows of the chunks at `positions`, one after the other, float32 [sum of their counts, dims]."""
        counts = self.counts[positions]
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        source_rows = np.repeat(self.rows[positions], counts) + within
        source_segments = np.repeat(self.segments[positions], counts)
        dims = next(iter(self.mapped.values())).shape[1] if self.mapped else 0
        values = np.empty((len(source_rows), dims), np.float32)
        for segment in np.unique(source_segments):
            here = source_segments == segment
            values[here] = self.mapped[int(segment)][source_rows[here]]
        return values


class DenseEngine(Protocol):
    """Ranks the chunks of one snapshot for one query. `exact` says whether it answers what brute force answers."""

    exact: bool

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        """The `depth` best of the allowed chunks.

        query: float32 [query rows, dims]. allowed: bool [chunks], None for all.
        """
        ...


def engine_for(rows: RaggedRows, *, multi_vector: bool) -> DenseEngine:
    """The engine for what the encoder makes."""
    return MaxSimEngine(rows) if multi_vector else FlatEngine(rows)


class FlatEngine:
    """Inner product with every row (faiss IndexFlatIP, exact); a chunk scores what its best row scores.

    Keeps a copy of the live rows in memory.
    """

    exact = True

    def __init__(self, rows: RaggedRows) -> None:
        values = rows.gather(np.arange(len(rows)))
        self._owner = np.repeat(np.arange(len(rows)), rows.counts)  # [rows] -> chunk
        self._faiss = _faiss()
        self._index = self._faiss.IndexFlatIP(values.shape[1])
        self._index.add(values)

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        candidates = len(self._owner) if allowed is None else int(allowed[self._owner].sum())
        take = min(candidates, depth + 16)
        while take:
            run, complete = self._search(query[:1], depth, take, allowed)
            if complete or take == candidates:
                return run
            take = min(candidates, take * 4)
        return Run.empty()

    def _search(self, query: np.ndarray, depth: int, take: int, allowed: np.ndarray | None) -> tuple[Run, bool]:
        """The run that the best `take` rows make, and whether no further row can change it."""
        scores, rows = self._index.search(np.ascontiguousarray(query), take, params=self._filter(allowed))
        owners, scores = self._owner[rows[0]], np.round(scores[0].astype(np.float64), _DECIMALS)
        positions, first = np.unique(owners, return_index=True)  # rows come best first
        run = best(positions, scores[first], depth)
        return run, len(run) == depth and scores[-1] < run.scores[-1]

    def _filter(self, allowed: np.ndarray | None) -> Any:
        if allowed is None:
            return None
        bits = np.packbits(allowed[self._owner], bitorder="little")
        return self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bits))


class MaxSimEngine:
    """Late interaction (ColBERT, arXiv 2004.12832): every query row takes its best document row, and these are summed.

    Exact and plain: reads all rows of all allowed chunks, block by block, for each query. Fit for some thousand
    chunks; slow beyond.
    """

    exact = True

    def __init__(self, rows: RaggedRows) -> None:
        self._rows = rows

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        positions = np.arange(len(self._rows)) if allowed is None else np.flatnonzero(allowed)
        if not len(positions):
            return Run.empty()
        counts = np.cumsum(self._rows.counts[positions])
        cuts = np.flatnonzero(np.diff(counts // _BLOCK_ROWS)) + 1
        scores = np.concatenate([self._score(query, block) for block in np.split(positions, cuts)])
        return best(positions, np.round(scores, _DECIMALS), depth)

    def _score(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
        counts = self._rows.counts[positions]
        similar = self._rows.gather(positions) @ query.T  # [rows, query rows]
        return np.maximum.reduceat(similar, np.cumsum(counts) - counts).sum(axis=1, dtype=np.float64)


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra("faiss-cpu", "retrieval") from error
    return faiss
