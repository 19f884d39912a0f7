"""FlatEngine: every vector is compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctxkit.errors import MissingExtra
from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines.base import DECIMALS
from ctxkit.retrieval.fusion import Run, best_and_ties
from ctxkit.retrieval.growing import Growing


class FlatEngine:
    exact = True

    def __init__(self, dims: int) -> None:
        self._faiss = _faiss()
        self._index = self._faiss.IndexFlatIP(dims)
        self._owners = Growing(np.int64)
        self._documents = 0

    def __len__(self) -> int:
        return self._documents

    def add(self, vectors: Vectors) -> None:
        self._index.add(np.ascontiguousarray(vectors.values))
        counts = np.diff(vectors.offsets)
        self._owners.extend(np.repeat(np.arange(len(counts)), counts) + self._documents)
        self._documents += len(counts)

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        owners = self._owners.values
        candidates = len(owners) if allowed is None else int(allowed[owners].sum())
        take = min(candidates, depth + 16)
        while take:
            run, complete = self._search(query[:1], depth, take, allowed)
            if complete or take == candidates:
                return run
            take = min(candidates, take * 4)
        return Run.empty()

    def vectors(self, documents: np.ndarray) -> Vectors:
        first = np.searchsorted(self._owners.values, documents)
        rows = [self._index.reconstruct(int(row)) for row in first]
        return Vectors(
            np.array(rows, np.float32).reshape(-1, self._index.d),
            np.arange(len(documents) + 1, dtype=np.int64),
        )

    def _search(self, query: np.ndarray, depth: int, take: int, allowed: np.ndarray | None) -> tuple[Run, bool]:
        scores, rows = self._index.search(np.ascontiguousarray(query), take, params=self._filter(allowed))
        owners, scores = self._owners.values[rows[0]], np.round(scores[0].astype(np.float64), DECIMALS)
        positions, first = np.unique(owners, return_index=True)
        run = best_and_ties(positions, scores[first], depth)
        return run, len(run) >= depth and scores[-1] < run.scores[-1]

    def _filter(self, allowed: np.ndarray | None) -> Any:
        if allowed is None:
            return None
        bits = np.packbits(allowed[self._owners.values], bitorder="little")
        return self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bits))


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra("faiss-cpu", "retrieval") from error
    return faiss
