"""Writer: what one write transaction may do to an index."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.segments import SegmentFolder
from ctxkit.retrieval.terms import terms

_SEGMENT_ROWS = 1 << 18  # a segment of this size is left alone; bounds memory while segments are joined


class Writer:
    """The changes of one transaction. Nothing is visible to a reader before the transaction commits.

    retired: vector files that no row names any more; to be deleted after the commit.
    """

    def __init__(self, connection: sqlite3.Connection, segments: SegmentFolder) -> None:
        self._connection = connection
        self._segments = segments
        self.retired: list[str] = []

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no vectors yet, each once, in order."""
        known = "SELECT 1 FROM vectors WHERE key = ?"
        return [key for key in dict.fromkeys(keys) if self._connection.execute(known, (key,)).fetchone() is None]

    def put_vectors(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Register the vectors of `keys` in a new segment, which takes in the last ones that are not larger.

        So sizes fall from segment to segment, and there are never more than a logarithm of them.
        """
        counts = np.diff(vectors.offsets)
        if len(counts) != len(keys) or not counts.all() or vectors.offsets[-1] != len(vectors.values):
            raise StoreError(f"the encoder returned vectors of {len(counts)} texts for {len(keys)}, or none for one")
        spans = list(zip(keys, vectors.offsets[:-1].tolist(), counts.tolist(), strict=True))
        self._append([np.asarray(vectors.values, np.float32)], spans, self._small_tail(len(vectors.values)))

    def put_chunks(self, chunks: Iterable[Chunk], keys: Iterable[str]) -> None:
        """Add chunks, or replace those of equal id; `keys` name their vectors. Their sources become known."""
        for chunk, key in zip(chunks, keys, strict=True):
            self._connection.execute(
                "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*_row_of(chunk), key)
            )
            self._connection.execute("INSERT OR IGNORE INTO sources VALUES (?, '')", (chunk.source,))

    def put_source(self, source: str, content_hash: str) -> None:
        """Record which content of `source` is indexed."""
        self._connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", (source, content_hash))

    def drop_source(self, source: str) -> int:
        """Forget a source with its chunks; returns how many chunks went."""
        self._connection.execute("DELETE FROM sources WHERE source = ?", (source,))
        return self._connection.execute("DELETE FROM chunks WHERE source = ?", (source,)).rowcount

    def drop_chunks(self, ids: Iterable[str]) -> int:
        """Forget chunks; returns how many there were."""
        return sum(self._connection.execute("DELETE FROM chunks WHERE id = ?", (id_,)).rowcount for id_ in set(ids))

    def ids_of(self, source: str) -> set[str]:
        """Ids of the chunks of `source`."""
        return {id_ for (id_,) in self._connection.execute("SELECT id FROM chunks WHERE source = ?", (source,))}

    def compact_if_sparse(self) -> bool:
        """Rewrite the vectors when more than half of the rows belong to no chunk. True if it did."""
        total, dead = row_counts(self._connection)
        if dead * 2 <= total:
            return False
        self._connection.execute("DELETE FROM vectors WHERE key NOT IN (SELECT key FROM chunks)")
        segments = self._connection.execute("SELECT id, name, rows FROM segments ORDER BY id").fetchall()
        batch: list[tuple[int, str, int]] = []
        for segment in segments:
            batch.append(segment)
            if sum(rows for _, _, rows in batch) >= _SEGMENT_ROWS:
                self._append([], [], batch)
                batch = []
        self._append([], [], batch)
        return True

    def _small_tail(self, rows: int) -> list[tuple[int, str, int]]:
        tail: list[tuple[int, str, int]] = []
        for segment in self._connection.execute("SELECT id, name, rows FROM segments ORDER BY id DESC"):
            if segment[2] > rows or rows + segment[2] > _SEGMENT_ROWS:
                break
            tail.append(segment)
            rows += segment[2]
        return tail[::-1]

    def _append(
        self, values: list[np.ndarray], spans: list[tuple[str, int, int]], absorbed: list[tuple[int, str, int]]
    ) -> None:
        """Write one segment: first `values` with their (key, row, rows), then what `absorbed` segments still hold."""
        at = sum(map(len, values))
        for id_, name, rows in absorbed:
            kept = self._spans_in(id_)
            if kept:
                take = np.concatenate([np.arange(row, row + count) for _, row, count in kept])
                values.append(self._segments.open(name, rows)[take])
                starts = at + np.cumsum([0, *(count for _, _, count in kept)])
                spans = spans + [(key, int(at), n) for (key, _, n), at in zip(kept, starts, strict=False)]
                at = int(starts[-1])
        if spans:
            self._register(np.concatenate(values), spans)
        self._connection.executemany("DELETE FROM segments WHERE id = ?", [(id_,) for id_, _, _ in absorbed])
        self.retired += [name for _, name, _ in absorbed]

    def _register(self, values: np.ndarray, spans: list[tuple[str, int, int]]) -> None:
        insert = "INSERT INTO segments (name, rows) VALUES ('', ?)"
        id_ = self._connection.execute(insert, (len(values),)).lastrowid
        name = f"{id_:08d}.npy"
        self._segments.write(name, values)
        self._connection.execute("UPDATE segments SET name = ? WHERE id = ?", (name, id_))
        self._connection.executemany(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", [(key, id_, row, rows) for key, row, rows in spans]
        )

    def _spans_in(self, segment: int) -> list[tuple[str, int, int]]:
        query = "SELECT key, row, rows FROM vectors WHERE segment = ? ORDER BY row"
        return self._connection.execute(query, (segment,)).fetchall()


def row_counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """Vector rows in all segments, and how many of them belong to no chunk."""
    total = connection.execute("SELECT COALESCE(SUM(rows), 0) FROM segments").fetchone()[0]
    live = "SELECT COALESCE(SUM(rows), 0) FROM vectors WHERE key IN (SELECT key FROM chunks)"
    return int(total), int(total) - int(connection.execute(live).fetchone()[0])


def _row_of(chunk: Chunk) -> tuple[object, ...]:
    try:
        metadata = json.dumps(dict(chunk.metadata), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` of chunk {chunk.id!r} must be JSON: {error}") from error
    return (
        *(chunk.id, chunk.source, chunk.text, json.dumps(chunk.title_path, ensure_ascii=False)),
        *(chunk.start_line, chunk.end_line, chunk.start_byte, chunk.end_byte, chunk.page),
        metadata,
        " ".join(terms(" ".join((*chunk.title_path, chunk.text)))),
    )
