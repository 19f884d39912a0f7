"""Writer: what one write transaction may do to an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval.storage.chunk_rows import chunk_row
from ctxkit.retrieval.storage.files import ArrayFolder
from ctxkit.retrieval.storage.settings import Settings
from ctxkit.retrieval.storage.state import State
from ctxkit.retrieval.storage.tables import CHUNKS, DELETED, SOURCES, Sums
from ctxkit.retrieval.storage.vector_writer import VectorWriter

_LOGGED_DELETIONS = 20_000  # readers that are further behind read everything anew


class Writer:
    """The changes of one transaction. Nothing is visible to a reader before the transaction commits.

    retired: array files that no row names any more; to be deleted after the commit.
    left_to_code: whether vectors should have been coded; known once it has finished. code: do so.
    """

    left_to_code = False

    def __init__(
        self, connection: sqlite3.Connection, files: ArrayFolder, settings: Settings, *, code: bool = True
    ) -> None:
        self._connection = connection
        self._code = code
        self._dropped = False
        self._state = State.read(connection)
        self._state.generation += 1
        self._sums = Sums(connection, self._state.sums, self._state.numbers)
        self._vectors = VectorWriter(connection, self._sums, files, settings)

    @property
    def retired(self) -> list[str]:
        return self._vectors.retired

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no vectors yet, each once, in order."""
        return [key for key in dict.fromkeys(keys) if self._vectors.number_of(key) is None]

    def put_vectors(self, keys: Sequence[str], vectors: Vectors) -> None:
        """Keep the vectors of `keys`, which had none."""
        self._vectors.put(keys, vectors)

    def put_chunks(self, chunks: Iterable[Chunk], keys: Iterable[str]) -> None:
        """Add chunks, or replace those of equal id; `keys` name their vectors. Their sources become known."""
        for chunk, key in zip(chunks, keys, strict=True):
            self._drop("WHERE id = ?", (chunk.id,))
            document = self._vectors.number_of(key)
            self._sums.insert(CHUNKS, (self._state.generation, *chunk_row(chunk), document))
            if not self._knows(chunk.source):
                self._sums.insert(SOURCES, (chunk.source, ""))

    def put_source(self, source: str, content_hash: str) -> None:
        """Record which content of `source` is indexed."""
        self._sums.update(SOURCES, (source, content_hash))

    def drop_source(self, source: str) -> int:
        """Forget a source with its chunks; returns how many chunks went."""
        self._sums.delete(SOURCES, "WHERE source = ?", (source,))
        return self._drop("WHERE source = ?", (source,))

    def drop_chunks(self, ids: Iterable[str]) -> int:
        """Forget chunks; returns how many there were."""
        return sum(self._drop("WHERE id = ?", (id_,)) for id_ in set(ids))

    def ids_of(self, source: str) -> set[str]:
        """Ids of the chunks of `source`."""
        return {id_ for (id_,) in self._connection.execute("SELECT id FROM chunks WHERE source = ?", (source,))}

    def compact(self) -> None:
        """Give back the room of everything that was deleted, and code anew what is coded."""
        self._vectors.compact()

    def finish(self) -> State:
        """Settle the vectors and trim the log of deletions; what `meta` is to say after the commit."""
        self.left_to_code = self._vectors.settle(dropped=self._dropped, code=self._code)
        self._state.epoch += self._vectors.changed
        if self._connection.execute("SELECT COUNT(*) FROM deleted").fetchone()[0] > _LOGGED_DELETIONS:
            self._sums.delete(DELETED, "WHERE generation < ?", (self._state.generation,))
            self._state.floor = self._state.generation
        return self._state

    def _drop(self, where: str, parameters: tuple[str]) -> int:
        slots = self._connection.execute(f"SELECT slot FROM chunks {where}", parameters).fetchall()
        for slot in slots:
            self._sums.insert(DELETED, (*slot, self._state.generation))
        self._dropped |= bool(slots)
        return self._sums.delete(CHUNKS, where, parameters) if slots else 0

    def _knows(self, source: str) -> bool:
        return self._connection.execute("SELECT 1 FROM sources WHERE source = ?", (source,)).fetchone() is not None
