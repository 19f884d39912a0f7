"""An array that rows are appended to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Growing:
    """Rows in one piece of memory. The room doubles, so that many small appends cost no more than one large one.

    shape: of one row.
    """

    def __init__(self, dtype: npt.DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._room = np.empty((0, *shape), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> npt.NDArray[Any]:
        """The rows so far: a view, which a later append may leave behind."""
        return self._room[: self._count]

    def append(self, rows: npt.NDArray[Any]) -> None:
        """rows: [rows, *shape]."""
        after = self._count + len(rows)
        if after > len(self._room):
            room = np.empty((max(after, 2 * self._count), *self._room.shape[1:]), self._room.dtype)
            room[: self._count] = self.values
            self._room = room
        self._room[self._count : after] = rows
        self._count = after
