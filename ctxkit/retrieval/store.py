"""The files of an index: `index.sqlite` (chunks, sources, metadata) and `vectors/*.npy`.

One transaction of sqlite is the only commit point. A vector file is durable before the transaction that registers it
commits, and deleted after the transaction that retires it, so at every moment the committed rows name complete files.
`BEGIN IMMEDIATE` is the writer's lock; readers work on the snapshot that WAL gives them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctxkit.errors import IndexLocked, IndexMismatch, IndexNotFound, StoreError
from ctxkit.protocols import Encoder
from ctxkit.retrieval.segments import SegmentFolder
from ctxkit.retrieval.writer import Writer

FORMAT_VERSION = 1
DATABASE = "index.sqlite"
VECTORS = "vectors"

_READER_WAIT_SECONDS = 10.0
_WRITER_WAIT_SECONDS = 0.25

_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE sources (source TEXT PRIMARY KEY, content_hash TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, rows INTEGER NOT NULL)",
    "CREATE TABLE vectors (key TEXT PRIMARY KEY, segment INTEGER NOT NULL, row INTEGER NOT NULL, rows INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX vectors_by_segment ON vectors (segment, row)",
    "CREATE TABLE chunks (id TEXT PRIMARY KEY, source TEXT NOT NULL, text TEXT NOT NULL, title_path TEXT NOT NULL,"
    " start_line INTEGER NOT NULL, end_line INTEGER NOT NULL, start_byte INTEGER NOT NULL, end_byte INTEGER NOT NULL,"
    " page INTEGER, metadata TEXT NOT NULL,"
    " terms TEXT NOT NULL, key TEXT NOT NULL)",
    "CREATE INDEX chunks_by_source ON chunks (source)",
    "CREATE INDEX chunks_by_key ON chunks (key)",
)


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """Which encoder made the vectors of an index."""

    class_name: str
    name: str
    fingerprint: str
    multi_vector: bool

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderIdentity:
        return cls(type(encoder).__name__, encoder.name, encoder.fingerprint, encoder.multi_vector)

    def check(self, encoder: Encoder, place: str) -> None:
        """Raise IndexMismatch unless `encoder` gives the vectors that the index at `place` holds."""
        if (encoder.fingerprint, encoder.multi_vector) != (self.fingerprint, self.multi_vector):
            raise IndexMismatch(
                f"{place} was made by encoder {self.name!r} ({self.fingerprint}), not by {encoder.name!r} "
                f"({encoder.fingerprint}). Open it with the encoder that made it, "
                "or index the folder again into another path"
            )


class Store:
    """An open index folder. Reads and writes have a connection each; both may be used from several threads.

    folder: where the files are.
    identity: the encoder that made the vectors.
    """

    def __init__(self, folder: Path, reader: sqlite3.Connection, identity: EncoderIdentity) -> None:
        self.folder = folder
        self.identity = identity
        self.segments = SegmentFolder(folder / VECTORS)
        self._reader: sqlite3.Connection | None = reader
        self._reading = threading.RLock()
        self._writing = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing index. Raises IndexNotFound, IndexMismatch (format) or StoreError (damaged)."""
        if not (folder / DATABASE).is_file():
            raise _not_found(folder)
        with _typed(folder):
            reader = _connect(folder, _READER_WAIT_SECONDS)
            try:
                return cls(folder, reader, _identity(reader, folder))
            except BaseException:
                reader.close()
                raise

    @classmethod
    def create(cls, folder: Path, encoder: Encoder) -> Store:
        """Make an empty index in `folder`, then open it. An index that is there already is opened."""
        identity = EncoderIdentity.of(encoder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot make a folder for the index: {error.strerror or error}") from error
        with _typed(folder):
            connection = _connect(folder, _READER_WAIT_SECONDS)
            try:
                _initialise(connection, identity)
            finally:
                connection.close()
        return cls.open(folder)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent snapshot: everything read inside belongs to the same generation."""
        with self._reading, _typed(self.folder):
            if self._reader is None:
                raise StoreError(f"{self.folder}: the index is closed")
            if self._reader.in_transaction:  # nested: same snapshot
                yield self._reader
                return
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """One transaction, all or nothing, one writer at a time. Raises IndexLocked at once if there is another."""
        if self._reader is None:
            raise StoreError(f"{self.folder}: the index is closed")
        if not self._writing.acquire(blocking=False):
            raise _locked(self.folder)
        try:
            with _typed(self.folder):
                connection = _connect(self.folder, _WRITER_WAIT_SECONDS)
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    self.segments.sweep(_names(connection))
                    writer = Writer(connection, self.segments)
                    with _committed(connection):
                        yield writer
                    self.segments.remove(writer.retired)
                finally:
                    connection.close()
        finally:
            self._writing.release()

    def bytes(self) -> int:
        """Size of all files on disk."""
        own = sum(path.stat().st_size for path in self.folder.glob(DATABASE + "*"))
        return own + self.segments.bytes()

    def close(self) -> None:
        """Give the files back. Closing twice is fine."""
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None


def generation(connection: sqlite3.Connection) -> int:
    """Number of committed writes so far."""
    return int(connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])


@contextmanager
def _committed(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
        connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(folder: Path, wait_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / DATABASE, timeout=wait_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _initialise(connection: sqlite3.Connection, identity: EncoderIdentity) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if not _has_meta(connection):
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", _meta_of(identity).items())
    connection.execute("COMMIT")


def _meta_of(identity: EncoderIdentity) -> Mapping[str, str]:
    return {
        "format_version": str(FORMAT_VERSION),
        "generation": "0",
        "encoder": json.dumps(
            {
                "class_name": identity.class_name,
                "name": identity.name,
                "fingerprint": identity.fingerprint,
                "multi_vector": identity.multi_vector,
            }
        ),
    }


def _identity(connection: sqlite3.Connection, folder: Path) -> EncoderIdentity:
    if not _has_meta(connection):
        raise _not_found(folder)
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    version = meta.get("format_version")
    if version != str(FORMAT_VERSION):
        raise IndexMismatch(
            f"{folder} has format version {version!r}; this ctxkit reads {FORMAT_VERSION}. "
            f"Make the index again: ctxkit index FOLDER --to {folder}"
        )
    try:
        return EncoderIdentity(**json.loads(meta["encoder"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder}: the index does not say which encoder made it. Index the folder again") from error


def _has_meta(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is not None


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM segments")}


@contextmanager
def _typed(folder: Path) -> Iterator[None]:
    """Turn sqlite's errors into ctxkit's."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _locked(folder) from error
        raise StoreError(
            f"{folder / DATABASE}: cannot be read or written ({error}). If it is damaged, delete {folder} "
            f"and make it again: ctxkit index FOLDER --to {folder}"
        ) from error


def _locked(folder: Path) -> IndexLocked:
    return IndexLocked(f"{folder}: another writer is at work. Searches go on; write again when it has finished")


def _not_found(folder: Path) -> IndexNotFound:
    return IndexNotFound(f"there is no index at {folder}. Make one: ctxkit index FOLDER --to {folder}")
