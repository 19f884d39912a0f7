"""The folder of an index's array files. A name is used once; a file is written whole, and never changed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.retrieval.storage import array_file

_SUFFIX = ".safetensors"
_NAME = "file"  # a file says which it is: whole, but in the place of another, it would be taken for that


class ArrayFolder:
    """Writes, maps and deletes array files by the numbers that the database gives them.

    verify: whether the CRC32 of a file is compared when it is first mapped by this object.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        self._folder = folder
        self._verify = verify
        self._verified: set[str] = set()

    def name_of(self, number: int) -> str:
        return f"{number:08d}{_SUFFIX}"

    def path(self, name: str) -> Path:
        return self._folder / name

    def write(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> None:
        """Makes a file durable. Raises StoreError where the disk says no."""
        array_file.write(self._folder / name, arrays, {**(facts or {}), _NAME: name})

    def read(self, name: str, *, verify: bool | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Facts and arrays, mapped. Raises FileGone, and StoreError where it is damaged."""
        wanted = (self._verify and name not in self._verified) if verify is None else verify
        facts, arrays = array_file.read(self._folder / name, verify=wanted)
        if (found := facts.pop(_NAME, None)) != name:
            raise StoreError(f"{self._folder / name}: damaged: it holds the bytes of {found}. Index the folder again")
        self._verified.add(name)
        return facts, arrays

    def remove(self, names: Iterable[str]) -> None:
        """Deletes files that no row names; one that is still mapped (Windows) is left for `sweep`."""
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except PermissionError:
                continue

    def sweep(self, registered: Container[str]) -> None:
        """Deletes what a killed writer left behind. Only the writer may call this."""
        if self._folder.is_dir():
            self.remove([path.name for path in self._folder.iterdir() if path.name not in registered])

    def bytes(self) -> int:
        """Size of all files."""
        return total_bytes(self._folder.iterdir() if self._folder.is_dir() else ())


def total_bytes(paths: Iterable[Path]) -> int:
    """Size of these files; one that a writer deletes meanwhile counts nothing."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
