"""Vector segments: immutable `.npy` files, written whole or not at all, read through mmap."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

import numpy as np

from ctxkit.errors import StoreError

_TEMPORARY = ".tmp"


class SegmentGone(StoreError):
    """A vector file is missing: deleted by a later generation, or lost."""


class SegmentFolder:
    """The folder that holds one float32 [rows, dims] file per segment. Names are never used twice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, values: np.ndarray) -> None:
        """Make `name` durable: temporary file, fsync, rename, fsync of the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / (name + _TEMPORARY)
        with temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(values, np.float32), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / name)
        _sync_folder(self._folder)

    def open(self, name: str, rows: int) -> np.ndarray:
        """The rows of a segment, float32 [rows, dims], mapped. Raises SegmentGone, or StoreError if it is damaged."""
        path = self._folder / name
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise SegmentGone(f"{path}: the vector file is missing. Index the folder again") from error
        except (ValueError, OSError, EOFError) as error:
            raise StoreError(f"{path}: not a readable vector file ({error}). Index the folder again") from error
        if values.ndim != 2 or values.shape[0] != rows or values.dtype != np.float32:
            raise StoreError(
                f"{path}: holds {values.dtype} {values.shape}, expected float32 ({rows}, dims). Index the folder again"
            )
        return values

    def remove(self, names: list[str]) -> None:
        """Delete files that no index refers to; one that is still mapped (Windows) is left for `sweep`."""
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except PermissionError:
                continue

    def sweep(self, registered: Container[str]) -> None:
        """Delete what a killed writer left behind. Only the writer may call this."""
        if self._folder.is_dir():
            self.remove([path.name for path in self._folder.iterdir() if path.name not in registered])

    def bytes(self) -> int:
        """Size of all files."""
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        return sum(path.stat().st_size for path in paths if path.is_file())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # other systems neither need nor allow it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
