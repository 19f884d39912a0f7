"""Originals: where the texts are kept that a prompt shows reduced, or not at all.

A text is stored once, under the digest of its content. Which of them a ref of a session means is a second entry, whose
text is that digest. Whatever stores a text under a key can hold both.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, Self

from ctxkit.context.labels import Label
from ctxkit.errors import StoreError

_APPLICATION_ID = 0x63_74_78_6F  # "ctxo", in the header of the file
_WAIT_SECONDS = 30.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Originals(Protocol):
    """Texts by key. Any str is a text, lone surrogates included. Each call is all or nothing."""

    def put(self, key: str, text: str) -> None:
        """Store the text under the key, in place of what was there."""
        ...

    def get(self, key: str) -> str | None:
        """The text, None where there is none."""
        ...

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        """The keys that begin so, sorted by their UTF-8 bytes."""
        ...


class MemoryOriginals:
    """`Originals` for as long as the process lives."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"MemoryOriginals({len(self._texts):,} entries)"

    def put(self, key: str, text: str) -> None:
        self._texts[key] = text

    __setitem__ = put

    def get(self, key: str) -> str | None:
        return self._texts.get(key)

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        return tuple(sorted((key for key in self._texts if key.startswith(prefix)), key=_bytes))


class SqliteOriginals:
    """`Originals` in one file, for several sessions, threads and processes.

    path: the database; made where there is none, in a folder that exists.

    A write that returned is committed: it survives the end of the process, if not always a loss of power.
    Raises StoreError where the file is no database, is another program's or is damaged, where it cannot be written, and
    where another process writes to it for more than 30 seconds (that one is `retryable`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with _typed(self.path):
            self._connection = _opened(self.path)

    def __repr__(self) -> str:
        return f"SqliteOriginals({str(self.path)!r})"

    def put(self, key: str, text: str) -> None:
        with self._open() as connection:
            connection.execute(
                "INSERT INTO originals VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET text = excluded.text",
                (_bytes(key), _bytes(text)),
            )

    __setitem__ = put  # as of a dict, so that a store can be the cache of a SummaryCompressor

    def get(self, key: str) -> str | None:
        with self._open() as connection:
            row = connection.execute("SELECT text FROM originals WHERE key = ?", (_bytes(key),)).fetchone()
        return None if row is None else self._text(row[0])

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        start = _bytes(prefix)
        with self._open() as connection:
            rows = connection.execute(
                "SELECT key FROM originals WHERE key >= ? AND key < ? ORDER BY key", (start, start + b"\xff")
            ).fetchall()
        return tuple(self._text(key) for (key,) in rows)

    def close(self) -> None:
        """Give the file back. Closing twice is fine."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _typed(self.path):
            if self._connection is None:
                raise StoreError(f"{self.path}: the store is closed")
            yield self._connection

    def _text(self, stored: bytes) -> str:
        try:
            return stored.decode("utf-8", "surrogatepass")
        except (UnicodeDecodeError, AttributeError) as error:
            raise StoreError(f"{self.path}: damaged, an entry is no text ({error}). Restore the file") from error


class Shelf:
    """The originals of one session, by part id; `<session>/<part>` names the digest of a text.

    Behind the digest stands the label of the part, where it has one.

    Raises StoreError for a text that is not the one that was stored.
    """

    def __init__(self, originals: Originals, session_id: str) -> None:
        self.originals = originals
        self._prefix = f"{session_id}/"
        self._kept: dict[str, str] = {}

    def keep(self, part_id: str, text: str, label: Label | None = None) -> None:
        """Store the text first and what names it second, so that no name is ever without its text."""
        digest = digest_of(text)
        named = digest if label is None or label.is_default else f"{digest} {label}"
        if self._kept.get(part_id) == named:
            return
        self.originals.put(digest, text)
        self.originals.put(self._prefix + part_id, named)
        self._kept[part_id] = named

    def original(self, part_id: str) -> str | None:
        """The text, None for a part of which nothing was ever left out."""
        named = self.originals.get(self._prefix + part_id)
        if named is None:
            return None
        digest = named.partition(" ")[0]
        text = self.originals.get(digest)
        if text is None or digest_of(text) != digest:
            raise StoreError(f"the original of {part_id!r} is damaged: it is not the text of digest {digest}")
        return text

    def label(self, part_id: str) -> Label | None:
        """The label of a part of which something was left out, None for the default. Raises StoreError."""
        label = (self.originals.get(self._prefix + part_id) or "").partition(" ")[2]
        try:
            return Label.parse(label) if label else None
        except ValueError as error:
            raise StoreError(f"the label of {part_id!r} is damaged: {error}") from error

    def known(self) -> tuple[str, ...]:
        """The part ids, in the order of the conversation."""
        names = (key.removeprefix(self._prefix) for key in self.originals.keys(self._prefix))
        return tuple(sorted(names, key=lambda name: (len(name), name)))


def digest_of(text: str) -> str:
    """blake2b of the text, 128 bits in hex: the key that it is stored under."""
    return blake2b(_bytes(text), digest_size=16).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if _application(connection) != _APPLICATION_ID:
            connection.execute("BEGIN IMMEDIATE")
            _initialise(connection, path)
            connection.execute("COMMIT")
        with suppress(sqlite3.OperationalError):  # busy: whoever is at it sets the same mode, which stays with the file
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _initialise(connection: sqlite3.Connection, path: Path) -> None:
    """Make the table in an empty file; anything but an empty file or ours is refused."""
    application = _application(connection)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and application == 0:
        connection.execute("CREATE TABLE originals (key BLOB PRIMARY KEY, text BLOB NOT NULL)")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    elif application != _APPLICATION_ID:
        raise StoreError(f"{path}: a database of something else, not of ctxkit's originals. Choose another path")


def _application(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA application_id").fetchone()[0])


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    """Turn sqlite's errors into ctxkit's."""
    try:
        yield
    except sqlite3.Error as error:
        busy = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _BUSY
        advice = "another process is writing; try again" if busy else "if it is damaged, restore it or delete it"
        refusal = StoreError(f"{path}: cannot be read or written ({error}); {advice}")
        refusal.retryable = busy
        raise refusal from error
