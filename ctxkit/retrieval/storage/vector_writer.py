"""How vectors are put away: fresh ones in the database, many of them in a file, and token vectors coded in parts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.encoders.token_vectors import TokenVectors
from ctxkit.retrieval.storage import recoding
from ctxkit.retrieval.storage.files import ArrayFolder
from ctxkit.retrieval.storage.settings import Settings
from ctxkit.retrieval.storage.tables import DOCUMENTS, FILES, FRESH, SPANS, Sums
from ctxkit.retrieval.storage.vectors import (
    CODEBOOK,
    NOT_IN_A_FILE,
    PART,
    ROWS,
    FileRow,
    chosen,
    files_of,
    joined,
    live_numbers,
    packed_spans,
    uncoded,
)

_FILE_ROWS = 1 << 18  # a file of this size is left alone; bounds memory while files are joined
_DEAD_SHARE = 0.5  # of all rows; more of them are given back


class VectorWriter:
    """Writes the tables `documents`, `fresh` and `files`, and the array files.

    retired: names of files that nothing refers to any more. changed: whether what is coded is other than it was.
    """

    def __init__(self, connection: sqlite3.Connection, sums: Sums, files: ArrayFolder, settings: Settings) -> None:
        self._connection, self._sums, self._files = connection, sums, files
        self._build = settings.engine.build
        self._codes = settings.encoder.multi_vector and settings.engine.codes
        self.changed = False  # of what is coded
        self.retired: list[str] = []

    def number_of(self, key: str) -> int | None:
        """The document of that key."""
        found = self._connection.execute("SELECT number FROM documents WHERE key = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def put(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Documents for `keys`, with these vectors."""
        counts = np.diff(vectors.offsets)
        if len(counts) != len(keys) or not counts.all() or vectors.offsets[-1] != len(vectors.values):
            raise StoreError(f"the encoder returned vectors of {len(counts)} texts for {len(keys)}, or none for one")
        values = np.ascontiguousarray(vectors.values, np.float32)
        tokens = vectors if isinstance(vectors, TokenVectors) else None
        ids = None if tokens is None else tokens.token_ids.astype(np.int32)
        whole = len(values) >= self._build.fresh_rows
        file = self._write_rows(values, ids, len(keys)) if whole else NOT_IN_A_FILE
        for key, first, count in zip(keys, vectors.offsets[:-1].tolist(), counts.tolist(), strict=True):
            number = self._sums.insert(DOCUMENTS, (key, count, file, first if whole else 0))
            own = slice(first, first + count)
            if tokens is not None:
                self._sums.insert(SPANS, (number, packed_spans(tokens.spans[own])))
            if not whole:
                self._sums.insert(FRESH, (number, values[own].tobytes(), None if ids is None else ids[own].tobytes()))

    def settle(self, *, dropped: bool, code: bool) -> bool:
        """Put away what is too much where it is. True where vectors are left to be coded, for `code` is false.

        dropped: whether the transaction dropped chunks; without, no vectors have died, and all need not be looked at.
        """
        if dropped:
            total, dead = row_counts(self._connection)
            if dead > total * _DEAD_SHARE:
                self.compact()
        if self._fresh_rows() >= self._build.fresh_rows:
            self._flush()
        if self._codes:
            coded = files_of(self._connection, PART)
            tail = self._fresh_rows() + sum(file.rows for file in files_of(self._connection, ROWS))
            if tail > (self._build.tail_tokens if coded else self._build.exact_below_tokens):
                if not code:
                    return True
                self._code(everything=False)
        return False

    def compact(self) -> None:
        """Leave out the vectors that belong to no chunk, and code anew what is coded."""
        if files_of(self._connection, PART):
            self._code(everything=True)
            return
        group: list[FileRow] = []
        ids = [NOT_IN_A_FILE]
        for file in files_of(self._connection, ROWS):
            group.append(file)
            if sum(one.rows for one in group) >= _FILE_ROWS:
                self._regroup([*ids, *(one.id for one in group)], group)
                group, ids = [], []
        self._regroup([*ids, *(one.id for one in group)], group)

    def _flush(self) -> None:
        """What is fresh goes to a file, together with the last files that are not larger.

        So sizes fall from file to file, and there are never more than a logarithm of them.
        """
        rows = self._fresh_rows()
        absorbed: list[FileRow] = []
        for file in reversed(files_of(self._connection, ROWS)):
            if file.rows > rows or rows + file.rows > _FILE_ROWS:
                break
            absorbed.append(file)
            rows += file.rows
        self._regroup([NOT_IN_A_FILE, *(file.id for file in absorbed)], absorbed)

    def _regroup(self, ids: Sequence[int], released: Sequence[FileRow]) -> None:
        """The living documents of these files go to a new one, and the files."""
        blocks = list(uncoded(self._connection, self._files, within=ids))
        blocks = [chosen(block, live_numbers(self._connection, block.numbers)) for block in blocks]
        numbers = offsets = np.zeros(0, np.int64)
        file = NOT_IN_A_FILE
        if any(len(block.numbers) for block in blocks):
            whole = joined(blocks)
            file = self._write_rows(whole.vectors.values, whole.token_ids, len(whole.numbers))
            numbers, offsets = whole.numbers, whole.vectors.offsets[:-1]
        self._move(ids, released, file, numbers, offsets)

    def _code(self, *, everything: bool) -> None:
        """Code the tail, and join it with parts; `everything`: with all of them."""
        made = recoding.recoded(self._connection, self._files, self._build, everything=everything)
        released = [*made.released, *files_of(self._connection, ROWS)]
        ids = [NOT_IN_A_FILE, *(file.id for file in released)]
        if made.codebook is not None:
            self._write(CODEBOOK, *made.codebook.to_arrays(), documents=0, rows=made.codebook.tokens)
        file = NOT_IN_A_FILE
        if made.part is not None:
            file = self._write(PART, {}, made.part.to_arrays(), documents=len(made.part), rows=made.part.count)
        self._move(ids, released, file, made.numbers, np.arange(len(made.numbers)))
        self.changed = True

    def _move(
        self,
        ids: Sequence[int],
        released: Sequence[FileRow],
        file: int,
        numbers: np.ndarray,
        places: np.ndarray,
    ) -> None:
        """Documents `numbers` are now in `file`; others of the files `ids` are forgotten, `released` files deleted."""
        marks = ", ".join("?" * len(ids))
        query = f"SELECT number, key, rows FROM documents WHERE file IN ({marks})"
        known = {number: (key, rows) for number, key, rows in self._connection.execute(query, ids)}
        self._sums.delete(DOCUMENTS, f"WHERE file IN ({marks})", ids)
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            self._sums.put(DOCUMENTS, (number, *known[number], file, place))
        if NOT_IN_A_FILE in ids:
            self._sums.delete(FRESH, "")
        if len(numbers) < len(known):
            self._sums.delete(SPANS, "WHERE number NOT IN (SELECT number FROM documents)")
        for one in released:
            self._sums.delete(FILES, "WHERE id = ?", (one.id,))
            self.retired.append(one.name)

    def _write_rows(self, values: np.ndarray, token_ids: np.ndarray | None, documents: int) -> int:
        arrays = {"values": values} if token_ids is None else {"values": values, "token_ids": token_ids}
        return self._write(ROWS, {}, arrays, documents=documents, rows=len(values))

    def _write(
        self, kind: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, documents: int, rows: int
    ) -> int:
        name = self._files.name_of(self._sums.next(FILES))
        self._files.write(name, arrays, facts)
        return self._sums.insert(FILES, (kind, name, documents, rows))

    def _fresh_rows(self) -> int:
        query = f"SELECT COALESCE(SUM(rows), 0) FROM documents WHERE file = {NOT_IN_A_FILE}"
        return int(self._connection.execute(query).fetchone()[0])


def row_counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """Vector rows of all documents, and how many of them belong to no chunk."""
    total = connection.execute("SELECT COALESCE(SUM(rows), 0) FROM documents").fetchone()[0]
    live = "SELECT COALESCE(SUM(rows), 0) FROM documents WHERE number IN (SELECT document FROM chunks)"
    return int(total), int(total) - int(connection.execute(live).fetchone()[0])
