"""Growing: an array that rows are appended to."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike


class Growing:
    """Rows of one dtype, [rows] or [rows, columns]. `extend` costs what it adds, amortised, whatever is held already.

    >>> rows = Growing(np.int32, columns=2)
    >>> rows.extend([[1, 2], [3, 4]])
    >>> rows.extend([[5, 6]])
    >>> len(rows), rows.values[1:].tolist()
    (3, [[3, 4], [5, 6]])
    """

    def __init__(self, dtype: DTypeLike, columns: int | None = None) -> None:
        self._room = np.empty((0,) if columns is None else (0, columns), dtype)
        self._filled = 0

    def __len__(self) -> int:
        """Rows so far."""
        return self._filled

    @property
    def values(self) -> np.ndarray:
        """What is filled, [rows] or [rows, columns]: a view, which may be written to until the next `extend`.

        A view taken before an `extend` keeps its rows, but what is written later is not seen through it for certain.
        """
        return self._room[: self._filled]

    def extend(self, rows: ArrayLike) -> None:
        """Append `rows`, [new rows] or [new rows, columns]. Raises ValueError for another shape."""
        new = np.asarray(rows, self._room.dtype)
        if new.ndim != self._room.ndim or new.shape[1:] != self._room.shape[1:]:
            raise ValueError(f"expected rows of shape {self._room.shape[1:]}, got an array of shape {new.shape}")
        filled = self._filled + len(new)
        if filled > len(self._room):
            self._grow(filled)
        self._room[self._filled : filled] = new
        self._filled = filled

    def _grow(self, rows: int) -> None:
        larger = np.empty((max(rows, len(self._room) * 3 // 2), *self._room.shape[1:]), self._room.dtype)
        larger[: self._filled] = self.values
        self._room = larger
