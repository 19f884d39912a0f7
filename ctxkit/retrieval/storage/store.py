"""The files of an index: `index.sqlite` (texts, metadata, what came last), `vectors/` (arrays), `acknowledged`.

One transaction of sqlite, whose log is the write-ahead log, is the only commit point. An array file is durable before
the transaction that names it commits, and deleted after the transaction that retires it, so at every moment the
committed rows name complete files. `BEGIN IMMEDIATE` is the writer's lock; readers work on the snapshot that WAL gives
them. `acknowledged` holds the number of the last acknowledged write: a damaged log, whose end sqlite silently leaves
out, is found out by it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctxkit.errors import IndexLocked, IndexMismatch, IndexNotFound, StoreError
from ctxkit.retrieval.storage import tables
from ctxkit.retrieval.storage.acknowledged import (
    acknowledge,
    acknowledge_committed,
    check_acknowledged,
    is_busy,
    write_acknowledged,
)
from ctxkit.retrieval.storage.array_file import FileGone
from ctxkit.retrieval.storage.files import ArrayFolder, total_bytes
from ctxkit.retrieval.storage.settings import Settings
from ctxkit.retrieval.storage.state import State
from ctxkit.retrieval.storage.tables import DATABASE
from ctxkit.retrieval.storage.writer import Writer
from ctxkit.retrieval.storage.writer_lock import WriterLock

FORMAT_VERSION = 2
VECTORS = "vectors"

_READER_WAIT_SECONDS = 10.0
_WRITER_WAIT_SECONDS = 0.25


class Store:
    """An open index folder. Reads and writes have a connection each; both may be used from several threads.

    folder: where the files are. settings: what made the vectors. files: the arrays.
    background: code token vectors in a thread of its own, after the write that made it due.
    """

    def __init__(self, folder: Path, reader: sqlite3.Connection, settings: Settings, *, verify: bool = True) -> None:
        self.folder = folder
        self.background = False
        self.settings = settings
        self.files = ArrayFolder(folder / VECTORS, verify=verify)
        self._reader: sqlite3.Connection | None = reader
        self._reading = threading.RLock()
        self._writing = WriterLock()

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Store:
        """Open an existing index. Raises IndexNotFound, IndexMismatch (format) or StoreError (damaged)."""
        if not (folder / DATABASE).is_file():
            raise _not_found(folder)
        with _typed(folder):
            reader = _connect(folder, _READER_WAIT_SECONDS)
            try:
                settings = _settings(reader, folder)
                check_acknowledged(reader, folder)
                return cls(folder, reader, settings, verify=verify)
            except BaseException:
                reader.close()
                raise

    @classmethod
    def create(cls, folder: Path, settings: Settings, *, verify: bool = True) -> Store:
        """Make an empty index in `folder`, then open it. An index that is there already is opened."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot make a folder for the index: {error.strerror or error}") from error
        with _typed(folder):
            connection = _connect(folder, _READER_WAIT_SECONDS, new=True)
            try:
                _initialise(connection, settings, folder)
            finally:
                connection.close()
        return cls.open(folder, verify=verify)

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
        with self._transaction(code=not self.background) as writer:
            yield writer
        if writer.left_to_code:
            self._writing.code(self._code)

    def _code(self) -> None:
        with self._transaction(code=True):
            pass  # settling is all there is to do

    @contextmanager
    def _transaction(self, *, code: bool) -> Iterator[Writer]:
        if self._reader is None:
            raise StoreError(f"{self.folder}: the index is closed")
        with self._writing.held(lambda: _locked(self.folder)), _typed(self.folder):
            connection = _connect(self.folder, _WRITER_WAIT_SECONDS)
            try:
                connection.execute("BEGIN IMMEDIATE")
                acknowledge(self.folder, State.read(connection).generation)
                self.files.sweep(_names(connection))
                writer = Writer(connection, self.files, self.settings, code=code)
                with _committed(connection, writer, self.folder):
                    yield writer
                self.files.remove(writer.retired)
            finally:
                connection.close()

    def verify(self) -> None:
        """Read all that is there and compare every checksum. Raises StoreError that names what is damaged."""
        with self._reading, _typed(self.folder):
            if self._reader is not None:  # outside of a transaction, which would not see the last write
                check_acknowledged(self._reader, self.folder)
        while True:
            with self.reading() as connection:
                generation = State.read(connection).generation
                try:
                    self._verify(connection)
                    return
                except FileGone as error:
                    gone = error
            with self.reading() as connection:
                if State.read(connection).generation == generation:  # no writer retired the file meanwhile: it is lost
                    raise gone

    def _verify(self, connection: sqlite3.Connection) -> None:
        report = [line for (line,) in connection.execute("PRAGMA integrity_check")]
        if report != ["ok"]:
            raise StoreError(f"{self.folder / DATABASE}: damaged: {report[0]}. Index the folder again")
        list(tables.rows(connection, tables.META))
        broken = tables.damaged_table(connection, State.read(connection).sums)
        if broken is not None:
            raise StoreError(f"{self.folder / DATABASE}: damaged: table {broken} has lost rows or got others")
        for name in sorted(_names(connection)):
            self.files.read(name, verify=True)

    def bytes(self) -> int:
        """Size of all files on disk."""
        return total_bytes(self.folder.glob(DATABASE + "*")) + self.files.bytes()

    def close(self) -> None:
        """Give the files back, after what is being coded. Closing twice is fine."""
        self._writing.settled()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None


@contextmanager
def _committed(connection: sqlite3.Connection, writer: Writer, folder: Path) -> Iterator[None]:
    try:
        yield
        state = writer.finish()
        state.write(connection)
        if writer.retired:
            _give_back(connection)
        connection.execute("COMMIT")
        acknowledge_committed(connection, folder, state.generation)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(folder: Path, wait_seconds: float, *, new: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / DATABASE, timeout=wait_seconds, isolation_level=None, check_same_thread=False)
    try:
        if new:  # heeded only before the first table is made, and takes the writer's lock
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _give_back(connection: sqlite3.Connection) -> None:
    """Return the free pages of the database. Each call of the pragma from Python frees one."""
    for _ in range(connection.execute("PRAGMA freelist_count").fetchone()[0]):
        connection.execute("PRAGMA incremental_vacuum(1)")


def _initialise(connection: sqlite3.Connection, settings: Settings, folder: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if not _has_meta(connection):
        write_acknowledged(folder, 0)  # before the commit: an index without this file has lost it
        for table in tables.TABLES:
            connection.execute(table.create())
        for statement in tables.INDEXES:
            connection.execute(statement)
        tables.put_meta(connection, [("format_version", str(FORMAT_VERSION)), *settings.to_json().items()])
        State().write(connection)
    connection.execute("COMMIT")


def _settings(connection: sqlite3.Connection, folder: Path) -> Settings:
    if not _has_meta(connection):
        raise _not_found(folder)
    if connection.execute("SELECT 1 FROM pragma_table_info('meta') WHERE name = 'crc'").fetchone():
        list(tables.rows(connection, tables.META))  # a damaged version is no other version
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    version = meta.get("format_version")
    if version != str(FORMAT_VERSION):
        raise IndexMismatch(
            f"{folder} has format version {version!r}; this ctxkit reads {FORMAT_VERSION}. "
            f"Make the index again: ctxkit index FOLDER --to {folder}"
        )
    return Settings.from_json(meta, str(folder))


def _has_meta(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is not None


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM files")}


@contextmanager
def _typed(folder: Path) -> Iterator[None]:
    """Turn sqlite's errors into ctxkit's."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # a message of sqlite may quote a damaged name
        if is_busy(error):
            raise _locked(folder) from error
        raise StoreError(
            f"{folder / DATABASE}: cannot be read or written ({error}). If it is damaged, delete {folder} "
            f"and make it again: ctxkit index FOLDER --to {folder}"
        ) from error


def _locked(folder: Path) -> IndexLocked:
    return IndexLocked(f"{folder}: another writer is at work. Searches go on; write again when it has finished")


def _not_found(folder: Path) -> IndexNotFound:
    return IndexNotFound(f"there is no index at {folder}. Make one: ctxkit index FOLDER --to {folder}")
