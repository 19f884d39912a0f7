"""Where the vectors of documents lie, and how they are read back.

A document is a text that was encoded, known by a number that only rises. Its vectors lie in the database as long as
they are fresh (`documents.file` is 0), then as float32 rows in an array file ("rows"), then coded in a part ("part")
that goes with the codebook ("codebook").
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector.codebook import Codebook
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.part import CodedPart
from ctxkit.retrieval.storage.files import ArrayFolder
from ctxkit.retrieval.storage.tables import DOCUMENTS, FILES, FRESH, SPANS, database_of, rows

NOT_IN_A_FILE = 0
ROWS, PART, CODEBOOK = "rows", "part", "codebook"

_BLOCK_ROWS = 1 << 18

Place = tuple[int, int, int, int]
"""Number, rows, file and place of a document."""


@dataclass(frozen=True)
class Block:
    """Some documents with their vectors.

    numbers: int64 [documents], rising. token_ids: int32 [rows], None where nobody knows them.
    """

    numbers: np.ndarray
    vectors: Vectors
    token_ids: np.ndarray | None


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row of the table `files`."""

    id: int
    kind: str
    name: str
    documents: int
    rows: int


def files_of(connection: sqlite3.Connection, *kinds: str) -> list[FileRow]:
    """Files of these kinds, oldest first."""
    found = [FileRow(*row) for row in rows(connection, FILES, "ORDER BY id")]  # type: ignore[arg-type]
    return [file for file in found if file.kind in kinds]


def uncoded(
    connection: sqlite3.Connection, files: ArrayFolder, after: int = 0, within: Sequence[int] | None = None
) -> Iterator[Block]:
    """Documents with numbers above `after` that are in no part, in order of their numbers, some at a time.

    within: only of these files.
    """
    mapped = {file.id: file for file in files_of(connection, ROWS)}
    places = [NOT_IN_A_FILE, *mapped] if within is None else list(within)
    column = "+file" if after else "file"  # the plus keeps sqlite from walking a file's documents for a few new ones
    where = f"WHERE number > ? AND {column} IN ({', '.join('?' * len(places))}) ORDER BY number"
    run: list[Place] = []
    held = 0
    for row in _places(connection, where, (after, *places)):
        if run and (row[2] != run[-1][2] or row[3] != _end(run[-1]) or held >= _BLOCK_ROWS):
            yield _block(connection, files, mapped, run)
            run, held = [], 0
        run.append(row)
        held += row[1]
    if run:
        yield _block(connection, files, mapped, run)


def vectors_of(connection: sqlite3.Connection, files: ArrayFolder, numbers: np.ndarray) -> Vectors:
    """The vectors of documents that are in no part, in the order of `numbers`."""
    found = [block.vectors.values for block in blocks_of(connection, files, numbers.tolist())]
    rows_of = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
    return Vectors(rows_of, np.cumsum([0, *map(len, found)], dtype=np.int64))


def blocks_of(connection: sqlite3.Connection, files: ArrayFolder, numbers: Sequence[int]) -> Iterator[Block]:
    """Each of these documents, which are in no part, as a block of its own, in this order."""
    mapped = {file.id: file for file in files_of(connection, ROWS)}
    query = "SELECT number, rows, file, place FROM documents WHERE number = ?"
    for number in numbers:
        run = connection.execute(query, (number,)).fetchall()
        if not run:
            raise StoreError(f"{database_of(connection)}: vectors of document {number} are missing")
        yield _block(connection, files, mapped, run)


def live_numbers(connection: sqlite3.Connection, numbers: np.ndarray) -> np.ndarray:
    """bool [documents], which of these (rising) numbers a chunk refers to."""
    if not len(numbers):
        return np.zeros(0, bool)
    query = "SELECT DISTINCT document FROM chunks WHERE document BETWEEN ? AND ?"
    found = [number for (number,) in connection.execute(query, (int(numbers[0]), int(numbers[-1])))]
    return np.isin(numbers, np.array(found, np.int64))


def chosen(block: Block, kept: np.ndarray) -> Block:
    """The documents of a block for which `kept` (bool [documents]) is true."""
    if kept.all():
        return block
    counts = np.diff(block.vectors.offsets)
    rows = np.repeat(kept, counts)
    offsets = np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64)
    ids = None if block.token_ids is None else block.token_ids[rows]
    return Block(block.numbers[kept], Vectors(block.vectors.values[rows], offsets), ids)


def coded(connection: sqlite3.Connection, files: ArrayFolder) -> tuple[CodedIndex, np.ndarray] | None:
    """The coded documents, and the number of each, int64; None where there are none."""
    books = files_of(connection, CODEBOOK)
    if not books or not files_of(connection, PART):
        return None
    codebook = Codebook.from_arrays(*files.read(books[-1].name))
    parts, numbers = [], [np.zeros(0, np.int64)]
    for file in files_of(connection, PART):
        parts.append(CodedPart.from_arrays(codebook, files.read(file.name)[1]))
        own = np.array([row[0] for row in _places(connection, "WHERE file = ? ORDER BY place", (file.id,))], np.int64)
        if len(own) != len(parts[-1]):
            raise StoreError(f"{database_of(connection)}: it knows {len(own)} of the documents in {file.name}")
        numbers.append(own)
    whole = np.concatenate(numbers)
    if (np.diff(whole) <= 0).any():
        raise StoreError(f"{database_of(connection)}: coded documents are out of order. Index the folder again")
    return CodedIndex(codebook, tuple(parts)), whole


def packed_spans(spans: np.ndarray) -> bytes:
    """Character spans [rows, 2] in few bytes: how far each starts behind the last start, and how long it is."""
    starts = np.diff(spans[:, 0], prepend=0)
    steps = np.stack([starts, spans[:, 1] - spans[:, 0]]).astype(np.int32)
    return zlib.compress(steps.tobytes(), level=1)


def spans_of(connection: sqlite3.Connection, number: int) -> np.ndarray | None:
    """The spans that `packed_spans` packed, int64 [rows, 2]; None for a document that came without."""
    found = list(rows(connection, SPANS, "WHERE number = ?", (number,)))
    if not found or not isinstance(found[0][1], bytes):
        return None
    steps = np.frombuffer(zlib.decompress(found[0][1]), np.int32).reshape(2, -1)
    starts = np.cumsum(steps[0], dtype=np.int64)
    return np.stack([starts, starts + steps[1]], axis=1)


def joined(blocks: Sequence[Block]) -> Block:
    """Several blocks, at least one, as one."""
    if len(blocks) == 1:
        return blocks[0]
    counts = np.concatenate([np.diff(block.vectors.offsets) for block in blocks])
    ids = [block.token_ids for block in blocks if block.token_ids is not None]
    return Block(
        np.concatenate([block.numbers for block in blocks]),
        Vectors(
            np.concatenate([block.vectors.values for block in blocks]),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        ),
        np.concatenate(ids) if len(ids) == len(blocks) else None,
    )


def _places(connection: sqlite3.Connection, where: str, parameters: Sequence[int]) -> list[Place]:
    return [(row[0], *row[2:]) for row in rows(connection, DOCUMENTS, where, parameters)]  # type: ignore[misc]


def _end(row: Place) -> int:
    _, count, file, place = row
    return 0 if file == NOT_IN_A_FILE else place + count


def _block(
    connection: sqlite3.Connection,
    files: ArrayFolder,
    mapped: dict[int, FileRow],
    run: Sequence[Place],
) -> Block:
    """Documents that lie one after the other in one file, or are all fresh."""
    numbers, counts = np.array([(row[0], row[1]) for row in run], np.int64).T
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    file = run[0][2]
    if file == NOT_IN_A_FILE:
        values, ids = _fresh(connection, numbers)
    elif file in mapped:
        arrays = files.read(mapped[file].name)[1]
        own = slice(run[0][3], run[0][3] + int(offsets[-1]))
        values = arrays["values"][own]
        ids = arrays["token_ids"][own] if "token_ids" in arrays else None
    else:
        raise StoreError(f"{database_of(connection)}: file {file} of vectors is not known. Index the folder again")
    if len(values) != offsets[-1]:
        raise StoreError(f"{database_of(connection)}: vectors of documents {numbers[0]} to {numbers[-1]} are missing")
    return Block(numbers, Vectors(values, offsets), ids)


def _fresh(connection: sqlite3.Connection, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    span = (int(numbers[0]), int(numbers[-1]))
    found = list(rows(connection, FRESH, "WHERE number BETWEEN ? AND ? ORDER BY number", span))
    if len(found) != len(numbers):
        raise StoreError(f"{database_of(connection)}: vectors of documents {span[0]} to {span[1]} are missing")
    values = np.frombuffer(b"".join(bytes(values) for _, values, _ in found), np.float32)  # type: ignore[arg-type]
    ids = [np.frombuffer(own, np.int32) for _, _, own in found if isinstance(own, bytes)]
    dims = _dims(connection)
    return values.reshape(-1, dims), np.concatenate(ids) if len(ids) == len(found) else None


def _dims(connection: sqlite3.Connection) -> int:
    """Columns of a fresh row."""
    query = "SELECT length(fresh.rows) / (4 * documents.rows) FROM fresh JOIN documents USING (number) LIMIT 1"
    return int(connection.execute(query).fetchone()[0])
