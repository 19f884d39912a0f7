"""Documents as they came, not coded yet: scanned by int8 rows or, where it is asked for, scored by float32 rows."""

from __future__ import annotations

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.growing import Growing
from ctxkit.retrieval.multivector import codec as coding
from ctxkit_kernels import ByteRows, Kernels, padded_dims

_KEPT_AS_GIVEN_ROWS = 8192  # larger arrays are not copied: they may be maps of a file


class Tail:
    """Documents 0 to len - 1, added at any time; MaxSim (ColBERT, arXiv 2004.12832) of each is computed at each search.

    Takes dims + 12 bytes per token in memory, and what was given to `add`.
    """

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self._rows = Growing(np.int8, padded_dims(dims))
        self._scales = Growing(np.float32)
        self._offsets = Growing(np.int64)
        self._offsets.extend([0])
        self._blocks: list[np.ndarray] = []  # float32 [rows, dims], as they came
        self._block_starts = Growing(np.int64)  # first row of each block
        self._largest_row = 0.0  # sum of absolute values, of all rows
        self._largest_scale = 0.0

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def rows(self) -> ByteRows:
        """All rows as int8."""
        return ByteRows(self._offsets.values, self._rows.values, self._scales.values)

    def add(self, vectors: Vectors) -> None:
        """Documents len(self), len(self) + 1, ... get these rows."""
        values = np.asarray(vectors.values, np.float32)
        rounded, scales = coding.byte_rows(values)
        self._blocks.append(values if len(values) >= _KEPT_AS_GIVEN_ROWS else values.copy())
        self._block_starts.extend([len(self._rows)])
        self._rows.extend(rounded)
        self._scales.extend(scales)
        self._offsets.extend(vectors.offsets[1:] + self._offsets.values[-1])
        self._largest_scale = max(self._largest_scale, float(scales.max(initial=0.0)))
        self._largest_row = max(self._largest_row, float(np.abs(values).sum(axis=1).max(initial=0.0)))

    def near(self, kernels: Kernels, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Scores of documents (int32) by int8 rows and an int8 query, float32: off by some thousandths of 1 a token."""
        rounded, unit = coding.to_int8(query)
        return kernels.scan(self.rows, rounded, unit, documents)[0]

    def best(self, kernels: Kernels, query: np.ndarray, k: int, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best k of `documents` and some more, with their float64 scores by float32 rows; in no order.

        None of the best is missed: what is left out is further behind by int8 than int8 can be wrong.
        """
        if len(documents) > k:
            near, unit = self.near(kernels, query, documents), coding.to_int8(query)[1]
            least = np.partition(near, len(near) - k)[len(near) - k] - 2 * self._error(query, unit)
            documents = documents[near >= least]
        return documents, self.scores(query, documents)

    def scores(self, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """float64 MaxSim of documents by their float32 rows; 0 for one without rows."""
        vectors = self.vectors(documents)
        filled = np.diff(vectors.offsets) > 0
        found = np.zeros(len(documents))
        if filled.any():
            similar = vectors.values @ query.T  # [rows, query tokens]
            best = np.maximum.reduceat(similar, vectors.offsets[:-1][filled])
            found[filled] = best.sum(axis=1, dtype=np.float64)
        return found

    def vectors(self, documents: np.ndarray) -> Vectors:
        """The rows of documents, as they were given."""
        rows = [np.zeros((0, self.dims), np.float32), *map(self._document, documents.tolist())]
        return Vectors(np.concatenate(rows), np.cumsum([len(own) for own in rows], dtype=np.int64))

    def _document(self, document: int) -> np.ndarray:
        first, last = self._offsets.values[document : document + 2].tolist()
        block = int(np.searchsorted(self._block_starts.values, first, side="right")) - 1
        while block and len(self._blocks[block]) == 0:
            block -= 1
        start = int(self._block_starts.values[block])
        return self._blocks[block][first - start : last - start]

    def _error(self, query: np.ndarray, unit: float) -> float:
        """No int8 score is further than this from the float32 one: half a unit off at each end, in every dimension."""
        of_rows = float(np.abs(query).sum()) * self._largest_scale / 2
        of_query = len(query) * unit / 2 * (self._largest_row + self.dims * self._largest_scale / 2)
        return (of_rows + of_query) * 1.001 + 1e-4
