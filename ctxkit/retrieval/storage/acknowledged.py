"""The file `acknowledged`: the number of the last acknowledged write, kept beside the database.

sqlite silently leaves out the end of a log that is damaged. Here it is said which write the log must at least hold.
Whoever writes the file holds the writer's lock, so that its number never falls.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path

from ctxkit.errors import StoreError
from ctxkit.retrieval.storage.array_file import TEMPORARY, sync_folder
from ctxkit.retrieval.storage.state import State
from ctxkit.retrieval.storage.tables import DATABASE

ACKNOWLEDGED = "acknowledged"


def acknowledged(folder: Path) -> int:
    """What the file says. Raises StoreError where it is damaged or missing."""
    path = folder / ACKNOWLEDGED
    try:
        said = path.read_bytes()
        generation = int(said.split()[0])
    except (ValueError, IndexError, OSError) as error:
        raise StoreError(f"{path}: damaged or missing ({error}). Index the folder again") from error
    if said != _content(generation):
        raise StoreError(f"{path}: damaged. Index the folder again")
    return generation


def acknowledge(folder: Path, generation: int) -> None:
    """Remember, outside of the database, that it holds this write. Only for the holder of the lock."""
    said = acknowledged(folder)
    _check(folder, said, generation)
    if said < generation:
        write_acknowledged(folder, generation)


def acknowledge_committed(connection: sqlite3.Connection, folder: Path, generation: int) -> None:
    """`acknowledge` a write whose commit gave the lock away: the next writer may hold it, and says it for this one."""
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if acknowledged(folder) >= generation:
                return
        else:
            break
    try:
        acknowledge(folder, State.read(connection).generation)
    finally:
        connection.execute("ROLLBACK")


def write_acknowledged(folder: Path, generation: int) -> None:
    """Make the file say this, durably. Raises StoreError where the disk says no."""
    path = folder / ACKNOWLEDGED
    temporary = path.with_name(ACKNOWLEDGED + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(_content(generation))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(folder)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error


def check_acknowledged(connection: sqlite3.Connection, folder: Path) -> None:
    """Raise StoreError where the database lacks an acknowledged write. Only outside of a transaction."""
    said = acknowledged(folder)  # first: a write may come between
    _check(folder, said, State.read(connection).generation)


def is_busy(error: Exception) -> bool:
    """Whether sqlite failed because another connection holds a lock."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _check(folder: Path, said: int, generation: int) -> None:
    if generation < said:
        raise StoreError(
            f"{folder / DATABASE}-wal: damaged or missing: write {said} was acknowledged, and the index holds "
            f"{generation}. Index the folder again"
        )


def _content(generation: int) -> bytes:
    number = str(generation).encode()
    return number + f" {zlib.crc32(number):08x}\n".encode()
