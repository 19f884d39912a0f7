"""A linear map to fewer dimensions: principal components without centring."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ctxkit.errors import ModelNotFound


@dataclass(frozen=True)
class Projection:
    """Vectors times `matrix` are their coordinates along the directions that hold most of them.

    Without centring, inner products survive as well as any map of that rank can keep them: the squared error of the
    vectors it was fitted to is the least possible (Eckart and Young, 1936).

    matrix: float32 [from dims, to dims], orthonormal columns, the strongest first.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.dtype != np.float32 or not np.isfinite(self.matrix).all():
            raise ValueError(f"a projection is finite float32 [from, to], got {self.matrix.dtype} {self.matrix.shape}")

    @classmethod
    def fit(cls, blocks: Iterable[np.ndarray], dims: int) -> Projection:
        """The `dims` strongest directions of all rows of `blocks`, each float32 [rows, from dims] of unit rows.

        Deterministic: double precision, and of the two signs of a direction the one whose largest entry is positive.
        Raises ValueError where the rows span fewer than `dims` directions.
        """
        moments, rows = np.zeros((1, 1)), 0
        for block in blocks:
            moments = moments + block.T.astype(np.float64) @ block.astype(np.float64)  # [from, from]
            rows += len(block)
        if not 1 <= dims <= len(moments):
            raise ValueError(f"`dims` must be in 1..{len(moments)}, got {dims!r}")
        strengths, directions = np.linalg.eigh(moments)  # ascending
        found = int((strengths > 1e-9 * strengths[-1]).sum())
        if not rows or found < dims:
            raise ValueError(
                f"{rows} vectors span {found if rows else 0} directions, `dims` asks for {dims}. Give more"
            )
        return cls(_signed(directions[:, ::-1][:, :dims]).astype(np.float32))

    @classmethod
    def read(cls, file: Path | IO[bytes]) -> Projection:
        """From an `.npy` file, float32 or float16. Raises ModelNotFound where it holds no projection."""
        try:
            return cls(np.load(file, allow_pickle=False).astype(np.float32))
        except (OSError, ValueError, EOFError) as error:
            raise ModelNotFound(f"{file}: not a projection ({error}). Fit it again") from error

    def write(self, path: Path) -> None:
        """To an `.npy` file."""
        with path.open("wb") as file:
            np.save(file, self.matrix, allow_pickle=False)

    @property
    def dims(self) -> int:
        """Length of a projected vector."""
        return self.matrix.shape[1]

    @property
    def digest(self) -> str:
        """Names the matrix by its content, 64 bits, hex."""
        data = np.ascontiguousarray(self.matrix, "<f4").tobytes()
        return hashlib.blake2b(data, digest_size=8).hexdigest()


def _signed(directions: np.ndarray) -> np.ndarray:
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.sign(directions[largest, np.arange(directions.shape[1])])
