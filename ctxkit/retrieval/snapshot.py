"""Snapshot: one generation of an index in memory, as far as searches have needed it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import StoreError
from ctxkit.retrieval.dense import DenseEngine, RaggedRows, engine_for
from ctxkit.retrieval.lexical import LexicalIndex
from ctxkit.retrieval.store import Store, generation

_COLUMNS = "id, source, text, title_path, start_line, end_line, start_byte, end_byte, page, metadata"


class Snapshot:
    """Positions 0..n-1 are the chunks of one generation, in order of their ids.

    Everything but ids and sources is read when first asked for. Ask inside `store.reading()` of the same generation.
    """

    def __init__(self, store: Store, connection: sqlite3.Connection) -> None:
        self.generation = generation(connection)
        self._store = store
        self._connection = connection
        rows = connection.execute("SELECT id, source, key FROM chunks ORDER BY id").fetchall()
        self.ids = [id_ for id_, _, _ in rows]
        self.sources = [source for _, source, _ in rows]
        self._keys = [key for _, _, key in rows]

    def __len__(self) -> int:
        return len(self.ids)

    def chunk(self, position: int) -> Chunk:
        """The chunk at `position`."""
        if "chunks" in self.__dict__:
            return self.chunks[position]
        found = chunk_by_id(self._connection, self.ids[position])
        if found is None:
            raise StoreError(f"{self._store.folder}: chunk {self.ids[position]!r} is gone from the index")
        return found

    @cached_property
    def chunks(self) -> list[Chunk]:
        """All chunks, by position."""
        return [_chunk(row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM chunks ORDER BY id")]

    @cached_property
    def dense(self) -> DenseEngine:
        """Searches the vectors."""
        return engine_for(self._ragged_rows(), multi_vector=self._store.identity.multi_vector)

    @cached_property
    def lexical(self) -> LexicalIndex:
        """Searches the words of titles and texts."""
        rows = self._connection.execute("SELECT terms FROM chunks ORDER BY id")
        return LexicalIndex([words.split(" ") if words else [] for (words,) in rows])

    def allowed(self, where: Callable[[Chunk], bool] | None, sources: Sequence[str] | None) -> np.ndarray | None:
        """Which positions pass both filters, bool [n]; None where there is no filter."""
        if where is None and sources is None:
            return None
        mask = np.ones(len(self), bool)
        if sources is not None:
            fitting = {name for name in set(self.sources) if any(fnmatchcase(name, glob) for glob in sources)}
            mask &= np.fromiter((name in fitting for name in self.sources), bool, len(self))
        if where is not None:
            for position in np.flatnonzero(mask).tolist():
                mask[position] = bool(where(self.chunks[position]))
        return mask

    def _ragged_rows(self) -> RaggedRows:
        spans = {key: span for key, *span in self._connection.execute("SELECT key, segment, row, rows FROM vectors")}
        try:
            table = np.array([spans[key] for key in self._keys], np.int64).reshape(-1, 3)
        except KeyError as error:
            raise StoreError(f"{self._store.folder}: a chunk has no vectors. Index the folder again") from error
        segments = self._connection.execute("SELECT id, name, rows FROM segments").fetchall()
        mapped = {id_: self._store.segments.open(name, rows) for id_, name, rows in segments}
        _check_spans(table, mapped)
        return RaggedRows(mapped, *table.T)


def chunk_by_id(connection: sqlite3.Connection, id_: str) -> Chunk | None:
    """The chunk of that id, None where there is none."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM chunks WHERE id = ?", (id_,)).fetchone()
    return None if row is None else _chunk(row)


def _chunk(row: tuple[Any, ...]) -> Chunk:
    id_, source, text, title_path, start_line, end_line, start_byte, end_byte, page, metadata = row
    return Chunk(
        id=id_,
        source=source,
        text=text,
        title_path=tuple(json.loads(title_path)),
        start_line=start_line,
        end_line=end_line,
        start_byte=start_byte,
        end_byte=end_byte,
        page=page,
        metadata=json.loads(metadata),
    )


def _check_spans(table: np.ndarray, mapped: dict[int, np.ndarray]) -> None:
    """Raise StoreError if a span of `table` (segment, row, rows) lies outside its segment."""
    for segment in np.unique(table[:, 0]).tolist():
        spans = table[table[:, 0] == segment]
        if segment not in mapped or (spans[:, 1] + spans[:, 2]).max() > len(mapped[segment]):
            raise StoreError(f"vector file {segment:08d}.npy is shorter than the index says. Index the folder again")
