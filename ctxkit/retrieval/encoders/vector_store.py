"""Vectors on disk, found by key: what `CachedEncoder` remembers."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.retrieval.encoders.token_vectors import Rows

_AT_ONCE = 500  # keys per query; sqlite takes a limited number of parameters
_WAIT_SECONDS = 30.0
_SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, digest BLOB NOT NULL, rows BLOB NOT NULL)"


class VectorStore:
    """A sqlite file of rows by key, each entry with the digest of its content.

    Several threads and processes may share one. An entry is written whole or not at all. Trouble with the file never
    stops the work: an entry that is damaged counts as absent, with a RuntimeWarning, and so does everything where the
    file cannot be read or written. It grows without bound; deleting the file empties it.

    path: the file; made, with its folders, when first written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()

    def read(self, keys: Iterable[bytes]) -> dict[bytes, Rows]:
        """What is there of `keys`."""
        found: dict[bytes, Rows] = {}
        wanted = sorted(set(keys))
        if self.path.is_file():
            for start in range(0, len(wanted), _AT_ONCE):
                found |= self._good(self._using(partial(_select, wanted[start : start + _AT_ONCE])))
        return found

    def write(self, entries: Mapping[bytes, Rows]) -> None:
        """Keep `entries`, in one transaction; those of the same key are replaced."""
        packed = [(key, _packed(rows)) for key, rows in entries.items()]
        self._using(partial(_insert, [(key, _digest(key, data), data) for key, data in packed]))

    def __len__(self) -> int:
        found = self._using(lambda connection: connection.execute("SELECT COUNT(*) FROM vectors").fetchall())
        return int(found[0][0]) if found else 0

    def __bool__(self) -> bool:
        return True  # an empty store is still a store

    def _good(self, entries: Iterable[tuple[bytes, Any, Any]]) -> dict[bytes, Rows]:
        found = {}
        for key, digest, data in entries:
            if isinstance(data, bytes) and _digest(key, data) == digest:  # damage can change a value's type
                found[key] = _unpacked(data)
            else:
                _warn(f"{self.path}: the vectors under {key.hex()} are damaged and are made again")
        return found

    def _using(self, work: Callable[[sqlite3.Connection], list[Any]]) -> list[Any]:
        """What `work` gives; a warning and [] where sqlite or the disk say no."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, closing(sqlite3.connect(self.path, timeout=_WAIT_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_SCHEMA)
                return work(connection)
        except (sqlite3.Error, OSError, UnicodeError) as error:  # a message of sqlite may quote damaged bytes
            _warn(f"{self.path}: cannot be used ({error}); vectors are made without it. Delete it if it is damaged")
            return []


def _select(keys: list[bytes], connection: sqlite3.Connection) -> list[Any]:
    marks = ", ".join("?" * len(keys))
    return connection.execute(f"SELECT key, digest, rows FROM vectors WHERE key IN ({marks})", keys).fetchall()


def _insert(entries: list[tuple[bytes, bytes, bytes]], connection: sqlite3.Connection) -> list[Any]:
    with connection:
        connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", entries)
    return []


def _digest(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16, key=key[:64]).digest()


def _packed(rows: Rows) -> bytes:
    """The arrays in numpy's own file form, one after the other."""
    file = io.BytesIO()
    for array in (rows.values, rows.token_ids, rows.spans):
        if array is not None:
            np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> Rows:
    file, arrays = io.BytesIO(data), []
    while file.tell() < len(data):
        arrays.append(np.load(file, allow_pickle=False))
    return Rows(*arrays)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)
