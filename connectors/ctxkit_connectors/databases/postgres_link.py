"""A pool of connections to PostgreSQL that know pgvector's type, with ctxkit's errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ctxkit.errors import CtxkitError, IndexLocked, StoreError
from ctxkit_connectors.databases.database import needed

ITERATIVE_FROM = (0, 8)  # the pgvector whose graph goes on searching where a filter took what it had found

_WAIT_SECONDS = 30.0
_RACES = ("DeadlockDetected", "SerializationFailure", "LockNotAvailable")


class PostgresLink:
    """Connections to one database. shown: the server and the database, without a password, for messages.

    version: of the extension `vector`. May be shared by threads.
    """

    def __init__(self, place: str, options: Mapping[str, Any], *, connections: int) -> None:
        """place: a URL or a connection string. Raises StoreError, also where the extension is not there."""
        self.shown = _shown(place)
        self._closed = False
        with _typed(self.shown):
            with _psycopg().connect(place, **options) as first:  # says at once what is wrong; a pool tries for long
                self.version = _version(first, self.shown)
            pool = needed("psycopg_pool", "psycopg-pool", "pgvector").ConnectionPool
            self._pool = pool(
                place,
                kwargs=dict(options),
                configure=_configure,
                check=pool.check_connection,  # a server that was restarted is found again
                min_size=1,
                max_size=connections,
                timeout=_WAIT_SECONDS,
                open=True,
            )

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor; what was done with it is committed at the end, or undone where the block raises."""
        if self._closed:
            raise StoreError(f"{self.shown}: the index is closed")
        with _typed(self.shown), self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            yield cursor

    def run_alone(self, *statements: Any) -> None:
        """Statements that may not be in a transaction."""
        if self._closed:
            raise StoreError(f"{self.shown}: the index is closed")
        with _typed(self.shown), self._pool.connection() as connection:
            connection.commit()
            connection.autocommit = True
            try:
                for statement in statements:
                    connection.execute(statement)
            finally:
                connection.autocommit = False

    def close(self) -> None:
        """Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._pool.close()


def array_text(rows: np.ndarray) -> list[str]:
    """float32 [rows, dims] as pgvector writes vectors."""
    return ["[" + ",".join(map(repr, row)) + "]" for row in rows.tolist()]


def _configure(connection: Any) -> None:
    """Have vectors travel as bytes: an array of float32 is dumped, and comes back."""
    psycopg = _psycopg()
    found = psycopg.types.TypeInfo.fetch(connection, "vector")
    connection.rollback()  # the look has begun a transaction, and a pool takes none that is open
    found.register(connection)

    class Dumper(psycopg.adapt.Dumper):  # type: ignore[name-defined,misc] # a class of a module that is loaded late
        format = psycopg.pq.Format.BINARY
        oid = found.oid

        def dump(self, obj: np.ndarray) -> bytes:
            return np.array([len(obj), 0], ">u2").tobytes() + obj.astype(">f4").tobytes()

    class Loader(psycopg.adapt.Loader):  # type: ignore[name-defined,misc]
        format = psycopg.pq.Format.BINARY

        def load(self, data: Any) -> np.ndarray:
            return np.frombuffer(data, ">f4", offset=4).astype(np.float32)

    connection.adapters.register_dumper(np.ndarray, Dumper)
    connection.adapters.register_loader(found.oid, Loader)


def _version(connection: Any, shown: str) -> tuple[int, ...]:
    """Of the extension in this database. Raises StoreError where there is none."""
    made = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if made:
        return tuple(map(int, re.findall(r"\d+", made[0])[:2]))
    there = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    first = "" if there else "Install pgvector on the server (Debian: apt install postgresql-16-pgvector), then have "
    raise StoreError(
        f"{shown}: the extension `vector` is missing. {first or 'Have '}the owner of the database run "
        "CREATE EXTENSION vector"
    )


def _shown(place: str) -> str:
    psycopg = _psycopg()
    try:
        known = psycopg.conninfo.conninfo_to_dict(place)
    except psycopg.Error:  # which quotes what it was given, maybe a password
        raise StoreError("PostgreSQL: `place` is neither a postgresql:// URL nor a connection string") from None
    host = "".join(f"{mark}{known[name]}" for mark, name in (("", "host"), (":", "port")) if known.get(name))
    return f"postgresql://{host}/{known.get('dbname') or ''}"


def _psycopg() -> Any:
    return needed("psycopg", "psycopg", "pgvector")


@contextmanager
def _typed(shown: str) -> Iterator[None]:
    """Turn psycopg's errors into ctxkit's."""
    try:
        yield
    except CtxkitError:
        raise
    except _psycopg().Error as error:
        said = " ".join(str(error).split())
        if type(error).__name__ in _RACES:
            raise IndexLocked(f"{shown}: another writer was faster. Do it again ({said})") from error
        raise StoreError(
            f"{shown}: PostgreSQL failed ({said}). Look whether the server runs and who may do what there, "
            "and try again"
        ) from error
