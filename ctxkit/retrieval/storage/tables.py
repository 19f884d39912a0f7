"""Rows of sqlite that know whether they are whole: every row carries its CRC32, every table the sum of them."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ctxkit.errors import StoreError

DATABASE = "index.sqlite"

Value = int | str | bytes | None

_MODULUS = 1 << 62  # sqlite's integers are signed


@dataclass(frozen=True, slots=True)
class Table:
    """One table. columns: names with their types; `crc` comes last of itself. number: a column that counts up.

    Rows of tables that number themselves come back with their number first.
    """

    name: str
    columns: tuple[str, ...]
    number: str = ""
    after: str = ""

    def create(self) -> str:
        numbered = [f"{self.number} INTEGER PRIMARY KEY"] if self.number else []
        return f"CREATE TABLE {self.name} ({', '.join([*numbered, *self.columns, 'crc INTEGER NOT NULL'])}){self.after}"

    @property
    def names(self) -> str:
        """All columns but the CRC32, for SELECT."""
        named = [self.number] if self.number else []
        return ", ".join([*named, *(column.split()[0] for column in self.columns)])


META = Table("meta", ("key TEXT PRIMARY KEY", "value TEXT NOT NULL"), after=" WITHOUT ROWID")
SOURCES = Table("sources", ("source TEXT PRIMARY KEY", "content_hash TEXT NOT NULL"), after=" WITHOUT ROWID")
CHUNKS = Table(
    "chunks",
    (
        *("generation INTEGER NOT NULL", "id TEXT NOT NULL UNIQUE", "source TEXT NOT NULL", "text TEXT NOT NULL"),
        *("title_path TEXT NOT NULL", "start_line INTEGER NOT NULL", "end_line INTEGER NOT NULL"),
        *("start_byte INTEGER NOT NULL", "end_byte INTEGER NOT NULL", "page INTEGER", "metadata TEXT NOT NULL"),
        *("terms TEXT NOT NULL", "document INTEGER NOT NULL"),
    ),
    "slot",
)
DELETED = Table("deleted", ("slot INTEGER PRIMARY KEY", "generation INTEGER NOT NULL"))
DOCUMENTS = Table(
    "documents",
    ("key TEXT NOT NULL UNIQUE", "rows INTEGER NOT NULL", "file INTEGER NOT NULL", "place INTEGER NOT NULL"),
    "number",
)
FRESH = Table("fresh", ("number INTEGER PRIMARY KEY", "rows BLOB NOT NULL", "token_ids BLOB"))
SPANS = Table("spans", ("number INTEGER PRIMARY KEY", "spans BLOB NOT NULL"))
FILES = Table(
    "files",
    ("kind TEXT NOT NULL", "name TEXT NOT NULL", "documents INTEGER NOT NULL", "rows INTEGER NOT NULL"),
    "id",
)
TABLES = (META, SOURCES, CHUNKS, DELETED, DOCUMENTS, FRESH, SPANS, FILES)
SUMMED = TABLES[1:]
INDEXES = (
    "CREATE INDEX chunks_by_source ON chunks (source)",
    "CREATE INDEX chunks_by_document ON chunks (document)",
    "CREATE INDEX chunks_by_generation ON chunks (generation)",
    "CREATE INDEX deleted_by_generation ON deleted (generation)",
    "CREATE INDEX documents_by_file ON documents (file, place)",
)


def crc_of(values: Sequence[Value]) -> int:
    """CRC32 of a row's values and their types."""
    plain = [[zlib.crc32(value)] if isinstance(value, bytes) else value for value in values]
    return zlib.crc32(repr(plain).encode("utf-8", "surrogatepass"))


def rows(
    connection: sqlite3.Connection, table: Table, where: str = "", parameters: Sequence[Value] = ()
) -> Iterator[tuple[Value, ...]]:
    """Rows of `table`, each found whole. where: what follows FROM. Raises StoreError for a row that is damaged."""
    for *values, crc in connection.execute(f"SELECT {table.names}, crc FROM {table.name} {where}", parameters):
        if crc_of(values) != crc:
            raise StoreError(
                f"{database_of(connection)}: damaged: row {values[0]!r} of table {table.name} is not what was written. "
                "Index the folder again"
            )
        yield tuple(values)


def database_of(connection: sqlite3.Connection) -> str:
    """The path of the database."""
    return str(connection.execute("PRAGMA database_list").fetchone()[2])


class Sums:
    """Changes of one transaction to the tables, which keep the sums of their rows' CRC32 right.

    connection: inside a transaction. sums, numbers: of each table, as `State` keeps them; changed in place.
    """

    def __init__(self, connection: sqlite3.Connection, sums: dict[str, int], numbers: dict[str, int]) -> None:
        self._connection = connection
        self._sums = sums
        self._numbers = numbers

    def insert(self, table: Table, values: Sequence[Value]) -> int:
        """Adds a row; returns its number where the table counts, else 0."""
        if not table.number:
            self.put(table, values)
            return 0
        number = self._numbers[table.name] = self.next(table)
        self.put(table, (number, *values))
        return number

    def delete(self, table: Table, where: str, parameters: Sequence[Value] = ()) -> int:
        """Removes rows; returns how many. where: what follows FROM."""
        found = self._connection.execute(f"DELETE FROM {table.name} {where} RETURNING crc", parameters).fetchall()
        self._add(table, -sum(crc for (crc,) in found))
        return len(found)

    def update(self, table: Table, values: Sequence[Value]) -> None:
        """Puts a whole row in the place of the one with the same first value."""
        key = table.names.split(", ")[0]
        self.delete(table, f"WHERE {key} = ?", values[:1])
        self.put(table, values)

    def put(self, table: Table, values: Sequence[Value]) -> None:
        """Adds a whole row, its number first where the table counts."""
        crc = crc_of(values)
        marks = ", ".join("?" * (len(values) + 1))
        self._connection.execute(f"INSERT INTO {table.name} ({table.names}, crc) VALUES ({marks})", (*values, crc))
        self._add(table, crc)

    def next(self, table: Table) -> int:
        """The number that the next row of `table` gets: one that it has never used."""
        return self._numbers.get(table.name, 0) + 1

    def _add(self, table: Table, crc: int) -> None:
        self._sums[table.name] = (self._sums.get(table.name, 0) + crc) % _MODULUS


def damaged_table(connection: sqlite3.Connection, sums: dict[str, int]) -> str | None:
    """The first table whose rows are not those that `sums` says; None where all are."""
    for table in SUMMED:
        total = sum(crc_of(values) for values in rows(connection, table))
        if total % _MODULUS != sums.get(table.name, 0) % _MODULUS:
            return table.name
    return None


def put_meta(connection: sqlite3.Connection, values: Iterable[tuple[str, str]]) -> None:
    """Sets values of `meta`."""
    for key, value in values:
        crc = crc_of((key, value))
        connection.execute("INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?, ?, ?)", (key, value, crc))
