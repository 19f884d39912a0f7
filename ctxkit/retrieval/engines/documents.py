"""Which document owns which row, and what documents the rows that were found make."""

from __future__ import annotations

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines.base import DECIMALS
from ctxkit.retrieval.fusion import Run, best
from ctxkit.retrieval.growing import Growing


class Documents:
    """Documents 0, 1, ... and the consecutive rows that each owns: 8 bytes per document, nothing per row.

    dims: of the rows, None before the first.
    """

    def __init__(self, dims: int | None = None, offsets: np.ndarray | None = None) -> None:
        self.dims = dims
        self._offsets = Growing(np.int64)
        self._offsets.extend(np.zeros(1, np.int64) if offsets is None else offsets)
        counts = np.diff(self.offsets)
        self._with_rows, self._one_each = int(np.count_nonzero(counts)), bool((counts == 1).all())

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def offsets(self) -> np.ndarray:
        """int64 [documents + 1], where the rows of each begin."""
        return self._offsets.values

    @property
    def rows(self) -> int:
        return int(self.offsets[-1])

    def add(self, vectors: Vectors) -> None:
        """The documents of `vectors`, which `checks.vectors_of` has seen, come after the last one."""
        if len(vectors.values):
            self.dims = vectors.values.shape[1]
        counts = np.diff(vectors.offsets)
        self._with_rows += int(np.count_nonzero(counts))
        self._one_each = self._one_each and bool((counts == 1).all())
        self._offsets.extend(self.rows + vectors.offsets[1:])

    def of(self, rows: np.ndarray) -> np.ndarray:
        """int64 [rows], the owner of each."""
        return rows if self._one_each else np.searchsorted(self.offsets, rows, side="right") - 1

    def rows_allowed(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """bool [rows] from bool [documents]."""
        return allowed if allowed is None or self._one_each else np.repeat(allowed, np.diff(self.offsets))

    def count(self, allowed: np.ndarray | None) -> int:
        """How many of the allowed documents have a row, and so can be found."""
        if allowed is None:
            return self._with_rows
        return int(np.count_nonzero(allowed if self._one_each else allowed & (np.diff(self.offsets) > 0)))

    def with_rows(self, allowed: np.ndarray | None) -> np.ndarray:
        """int64 numbers of these documents, ascending."""
        some = np.diff(self.offsets) > 0
        return np.flatnonzero(some if allowed is None else some & allowed)

    def run(self, scores: np.ndarray, rows: np.ndarray) -> Run:
        """The owners of `rows`, each with its best score, rounded to DECIMALS.

        scores: float32 [rows], best first. rows: int64 [rows], -1 where nothing was found.
        """
        found = rows >= 0
        rounded = np.round(scores[found].astype(np.float64), DECIMALS)
        positions, first = np.unique(self.of(rows[found]), return_index=True)
        return best(positions, rounded[first], len(positions))
