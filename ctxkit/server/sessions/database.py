"""Database: transactions on sqlite or PostgreSQL, in the SQL that both understand.

Statements have `?` for their values. A transaction that returned is on disk; one that raised changed nothing.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ctxkit.errors import MissingExtra, StoreError

Row = tuple[Any, ...]
_WAIT_SECONDS = 30.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Transaction(Protocol):
    """Statements that happen together."""

    def execute(self, statement: str, *values: object) -> list[Row]:
        """The rows, none for a statement that gives none."""
        ...


class Database(Protocol):
    """For several threads at once."""

    def writing(self) -> Any:
        """A context manager of a Transaction that excludes other writers of what it reads with `locking`."""
        ...

    def reading(self) -> Any:
        """A context manager of a Transaction that only reads."""
        ...

    @property
    def locking(self) -> str:
        """Ends a SELECT whose rows the transaction is about to change."""
        ...

    def close(self) -> None: ...


class SqliteDatabase:
    """One file, in WAL mode, for several threads and processes.

    wait_seconds: for another process that is writing.
    Raises StoreError; `retryable` where another process was writing for longer.
    """

    locking = ""  # BEGIN IMMEDIATE excludes other writers

    def __init__(self, path: str | Path, *, wait_seconds: float = _WAIT_SECONDS) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with _typed(self.path):
            self._connection = sqlite3.connect(
                self.path, timeout=wait_seconds, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")

    def __repr__(self) -> str:
        return f"SqliteDatabase({str(self.path)!r})"

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        with self._lock, _typed(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with self._lock, _typed(self.path):
            self._connection.execute("BEGIN")
            try:
                yield self
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def execute(self, statement: str, *values: object) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        advice = "another process is writing; try again" if code in _BUSY else "nothing of this request was written"
        refusal = StoreError(f"the session store cannot be read or written ({error}); {advice}")
        refusal.retryable = code in (*_BUSY, *_FULL)
        raise refusal from error


class PostgresDatabase:
    """A PostgreSQL server, through a small pool of connections that are checked before use: a server that was
    restarted is found again. Raises StoreError (`retryable`), MissingExtra.

    url: "postgresql://user:password@host/database"; never shown.
    """

    locking = " FOR UPDATE"

    def __init__(self, url: str, *, connections: int = 8) -> None:
        try:
            import psycopg
            from psycopg_pool import ConnectionPool
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres") from error
        self._errors: Sequence[type[Exception]] = (psycopg.Error,)
        self._pool = ConnectionPool(
            url,
            min_size=1,
            max_size=connections,
            open=False,
            timeout=_WAIT_SECONDS,
            check=ConnectionPool.check_connection,
        )
        with self._typed():
            self._pool.open(wait=True, timeout=_WAIT_SECONDS)

    def __repr__(self) -> str:
        return "PostgresDatabase(...)"

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        with self._typed(), self._pool.connection() as connection:  # commits, or rolls back where the block raised
            yield _PostgresTransaction(connection)

    reading = writing

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except tuple(self._errors) as error:
            refusal = StoreError(f"the session store cannot be reached ({type(error).__name__}); try again")
            refusal.retryable = True
            raise refusal from error

    def close(self) -> None:
        self._pool.close()


class _PostgresTransaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, *values: object) -> list[Row]:
        cursor = self._connection.execute(statement.replace("?", "%s"), values)
        return list(cursor.fetchall()) if cursor.description else []


def as_json(value: Any) -> str:
    """JSON in ASCII: no database refuses a character of it."""
    return json.dumps(value, separators=(",", ":"))


def open_database(where: str) -> Database:
    """A postgresql:// URL, or the path of a file, which is made if it is not there."""
    if where.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(where)
    return SqliteDatabase(where)
