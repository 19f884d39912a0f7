"""Approximate search over rows: inverted lists, and a graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions
from ctxkit.retrieval.engines.rows_engine import MORE_TIMES, RowsEngine
from ctxkit.retrieval.fusion import Run


class _AnnEngine(RowsEngine):
    """Searches wider until there are enough documents, in the end every allowed row.

    Compares every row, exactly, while these are fewer than the recipe wants. A filter is exact always, and makes a
    search wider, so that about as many rows are compared as without it; one that leaves less than 1 % of the rows is
    answered by comparing these. A document without rows is never found. Many threads may search at once; `add` must
    have the engine for itself, and takes long where it makes the index (anew).
    """

    exact = False

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        """As `Engine.search`. query: [1, dims]. Raises ValueError where an argument is malformed."""
        query, mask, candidates = self._asked(query, depth, allowed)
        if not self.trained_rows:
            return _cut(self._exactly(query, mask, candidates, depth), depth)
        wanted = min(depth, self._documents.count(allowed))
        run = Run.empty()
        for take, width in self._rounds(candidates, depth, mask):
            if len(run) >= wanted:
                break
            scores, rows = self._rows.look(query, take, width, mask)
            run = self._documents.run(scores[0], rows[0])
        return _cut(run, depth)

    def _rounds(self, candidates: int, depth: int, mask: np.ndarray | None) -> Iterator[tuple[int, int | None]]:
        """Rows to take, and how wide to look for them, until all are taken from all."""
        take, width = self._first_take(depth, candidates), None
        for width in self._rows.widths(mask):
            yield take, width
            take = min(candidates, MORE_TIMES * take)
        while take < candidates:
            yield take, width
            take = min(candidates, MORE_TIMES * take)
        yield candidates, width


def _cut(run: Run, depth: int) -> Run:
    return Run(run.positions[:depth], run.scores[:depth])


class IvfEngine(_AnnEngine):
    """Inverted lists (faiss IndexIVFFlat, or with SQ8 or PQ codes): reads the lists whose centroids are nearest.

    Memory per row: see `IvfOptions`; no float32 rows are kept beside the codes. Comparing directly reads all lists and
    skips what is not allowed before it is scored, so it needs no second copy of the rows either.
    """

    recipe_type: ClassVar[type[IvfOptions]] = IvfOptions


class HnswEngine(_AnnEngine):
    """A graph over the float32 rows (faiss IndexHNSWFlat; HNSW, arXiv 1603.09320).

    Memory per row: see `HnswOptions`. Comparing directly scans the rows that the graph keeps anyway.
    """

    recipe_type: ClassVar[type[HnswOptions]] = HnswOptions
