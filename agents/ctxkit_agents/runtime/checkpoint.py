"""Checkpoint: the finished steps of a run in a file, so that a run that died goes on without paying twice.

One sqlite database per run. A step has a key (its job's path, its name and how often that name came before) and a
digest of what was asked. A step that is there is not done again. A run whose steps are the same again, as they are
where only models and tools decide, goes through the finished ones at once, and on from there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxkit.context.scope import Scope
from ctxkit_agents.errors import CheckpointError, CheckpointLocked, CheckpointMismatch

_FORMAT = "ctxkit run 1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS steps (key TEXT PRIMARY KEY, digest TEXT NOT NULL, result TEXT) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A step that was begun. result: its JSON value; `done` tells a result of None from one that never came."""

    done: bool
    result: Any = None


class Checkpoint(Scope):
    """The steps of one run in the file `path`, made if it is not there.

    A finished step is on disk before the run goes on. Only one process may have it open.
    Raises CheckpointError for a file that is something else, CheckpointLocked while another process has it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._database: sqlite3.Connection | None = None
        with self._typed():
            database = sqlite3.connect(self.path, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            with self._typed():
                self._prepare(database)
        except CheckpointError:
            database.close()
            raise
        self._database = database

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {'closed' if self._database is None else f'{len(self):,} steps'})"

    def __len__(self) -> int:
        """Finished steps."""
        return int(self._execute("SELECT count(*) FROM steps WHERE result IS NOT NULL").fetchone()[0])

    def begin(self, key: str, digest: str) -> Recorded | None:
        """What is known of the step; None where it is new, and noted as begun then.

        Raises CheckpointMismatch where the step was asked something else before.
        """
        row = self._execute("SELECT digest, result FROM steps WHERE key = ?", key).fetchone()
        if row is None:
            self._execute("INSERT INTO steps (key, digest) VALUES (?, ?)", key, digest)
            return None
        if row[0] != digest:
            raise CheckpointMismatch(
                f"{self.path}: the step {key!r} was asked something else when this checkpoint was written; resume with "
                "the same inputs, models and settings, or give another path to begin anew"
            )
        return Recorded(row[1] is not None, None if row[1] is None else json.loads(row[1]))

    def finish(self, key: str, result: Any) -> None:
        """The step is done; `result` is a JSON value. On disk when this returns."""
        self._execute("UPDATE steps SET result = ? WHERE key = ?", json.dumps(result, ensure_ascii=False), key)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if self._database is None:
            raise CheckpointError(f"{self.path}: the checkpoint is closed")
        with self._typed():
            return self._database.execute(statement, values)

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_SCHEMA)
        database.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (_FORMAT,))
        (form,) = database.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
        if form != _FORMAT:
            raise CheckpointError(f"{self.path}: {form!r} is not a checkpoint of this release ({_FORMAT!r})")

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise CheckpointLocked(f"{self.path}: another process is using this checkpoint") from error
            raise CheckpointError(f"{self.path}: {error}") from error


def digest_of(asked: Any) -> str:
    """Of a JSON value."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
