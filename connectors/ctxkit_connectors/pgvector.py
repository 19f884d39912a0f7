"""PostgreSQL as an index: chunks in tables of a database that has the extension pgvector."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexNotFound
from ctxkit.protocols import Encoder
from ctxkit.retrieval.fusion import Fusion
from ctxkit.retrieval.storage.settings import EncoderIdentity
from ctxkit_connectors.databases import postgres_tables as tables
from ctxkit_connectors.databases.database import Row, Scored, from_fields, from_meta, to_meta
from ctxkit_connectors.databases.index import DatabaseIndex, opened
from ctxkit_connectors.databases.postgres_link import ITERATIVE_FROM, PostgresLink, array_text
from ctxkit_connectors.databases.postgres_tables import FIELDS, Tables

_INDEXED_FROM_CHUNKS = 10_000
_REFINE = 2  # rows that the graph is asked for, for each hit that is wanted; a chunk may have several
_WIDEST_SEARCH = 1000  # what pgvector takes as `hnsw.ef_search`


class PgvectorIndex(DatabaseIndex["PostgresDatabase"]):
    """Chunks in tables of PostgreSQL. Any number of processes and machines may read and write.

    Each write is one transaction, and a search sees every write that was acknowledged before it began. Dense search is
    exact until `optimise` has made a graph (HNSW, arXiv 1603.09320); words are weighed by BM25, exactly, in SQL.
    """

    @classmethod
    def open(
        cls,
        place: str,
        table: str = "chunks",
        *,
        encoder: Encoder | None = None,
        create: bool = False,
        fusion: Fusion | None = None,
        exact: bool = False,
        connections: int = 8,
        **options: Any,
    ) -> Self:
        """Open the tables whose names begin so: `chunks`, `chunks_sources`, `chunks_vectors`.

        place: "postgresql://user@host/database", or a connection string. The extension `vector` must be there.
        table: at most 40 bytes. It is looked for, and made, where the user's `search_path` says.
        encoder, create, fusion: as `ctxkit.Index.open` takes them.
        exact: compare all vectors even where there is a graph.
        connections: as many are open at most; each search or write takes one.
        options: for `psycopg.connect`, such as `password`, `sslmode` or `connect_timeout` (seconds).

        Raises IndexNotFound, IndexMismatch, StoreError, and MissingExtra where psycopg is not installed.
        """
        if connections < 1:
            raise ValueError(f"`connections` must be at least 1, got {connections!r}")
        names = Tables(table)
        link = PostgresLink(place, options, connections=connections)
        find = partial(PostgresDatabase.open, link, names)
        make = partial(PostgresDatabase.create, link, names)
        try:
            return cls(opened(find, make, encoder, create), encoder, fusion, exact=exact)
        except BaseException:
            link.close()
            raise

    def optimise(self, *, vector_index: bool | None = None) -> None:
        """Give back the room of what was deleted, count anew what the planner goes by, and make the graph.

        vector_index: make the approximate index, while reads and writes go on; it takes up to 2,000 dims. None makes
            it where there are 10,000 chunks or more. Its candidates' true scores are computed from the vectors; of
            token vectors it finds candidates as XTR does (arXiv 2304.01982). It is built in `maintenance_work_mem`.

        Raises StoreError where the user does not own the tables.
        """
        if vector_index is None:
            vector_index = len(self) >= _INDEXED_FROM_CHUNKS
        self._database.optimise(vector_index=vector_index)


class PostgresDatabase:
    """The `Database` over three tables: chunks with their words, their vectors, and records of sources.

    What the vectors were made by is JSON in the comment of the first.
    """

    def __init__(self, link: PostgresLink, names: Tables, identity: EncoderIdentity) -> None:
        self.place = link.shown
        self.identity = identity
        self._link = link
        self._names = names

    @classmethod
    def open(cls, link: PostgresLink, names: Tables) -> PostgresDatabase:
        """Raises IndexNotFound, IndexMismatch or StoreError."""
        place = f"{link.shown} ({names.name})"
        with link.transaction() as cursor:
            found = cursor.execute(tables.COMMENT, (names.name,)).fetchone()
        if not found:
            raise IndexNotFound(f"there is no index at {place}. Make one: PgvectorIndex.open(..., create=True)")
        return cls(link, names, from_meta(_meta(found[0]), place))

    @classmethod
    def create(cls, link: PostgresLink, names: Tables, encoder: Encoder) -> PostgresDatabase:
        """Make empty tables, then open them. Those that another process has just made are opened."""
        meta = json.dumps(to_meta(EncoderIdentity.of(encoder)))
        with link.transaction() as cursor:
            cursor.execute(tables.LOCK, (names.name,))
            if not cursor.execute(tables.COMMENT, (names.name,)).fetchone():
                for statement in names.creation(encoder.dims, meta):
                    cursor.execute(statement)
        return cls.open(link, names)

    def count(self) -> int:
        return self._all(tables.COUNT)[0][0]

    def sources(self, names: Collection[str] | None = None) -> dict[str, str]:
        if names is None:
            return dict(self._all(tables.ALL_SOURCES))
        return dict(self._all(tables.SOME_SOURCES, list(names)))

    def chunks(self, ids: Collection[str]) -> dict[str, Chunk]:
        found = self._all(tables.CHUNKS, list(ids))
        return {row[0]: from_fields(dict(zip(FIELDS, row, strict=True))) for row in found}

    def vectors(self, text_keys: Collection[str]) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for key, vector in self._all(tables.VECTORS, list(text_keys)):
            found.setdefault(key, []).append(vector)
        return {key: np.stack(rows) for key, rows in found.items()}

    def upsert(self, rows: Sequence[Row], sources: Mapping[str, str]) -> None:
        records = _records(rows)
        with self._link.transaction() as cursor:
            self._write(cursor, rows, records, sources)

    def replace(self, rows: Sequence[Row], sources: Mapping[str, str]) -> int:
        records = _records(rows)
        with self._link.transaction() as cursor:
            self._write(cursor, rows, records, sources)
            return self._run(cursor, tables.DROP_OTHERS, list(sources), [row.chunk.id for row in rows]).rowcount

    def delete(self, sources: Collection[str], ids: Collection[str]) -> int:
        names = list(sources)
        with self._link.transaction() as cursor:
            self._run(cursor, tables.HOLD_SOURCES, names)
            removed = self._run(cursor, tables.DROP_CHUNKS, names, list(ids)).rowcount
            self._run(cursor, tables.DROP_SOURCES, names)
            return removed

    def nearest(self, query: np.ndarray, limit: int, sources: Sequence[str] | None, *, exact: bool) -> list[Scored]:
        asked = {"query": array_text(query), "limit": limit, "sources": sources, "candidates": _REFINE * limit}
        with self._link.transaction() as cursor:
            graph = not exact and self._has_graph(cursor)
            if graph:
                self._widen(cursor, _REFINE * limit)
            statement = self._names.nearest(graph=graph, filtered=sources is not None)
            return [Scored(*pair) for pair in cursor.execute(statement, asked).fetchall()]

    def matching(self, words: Sequence[str], limit: int, sources: Sequence[str] | None) -> list[Scored]:
        asked = {"words": tables.numbers(words), "limit": limit, "sources": sources}
        statement = self._names.matching(filtered=sources is not None)
        with self._link.transaction() as cursor:
            return [Scored(*pair) for pair in cursor.execute(statement, asked).fetchall()]

    def approximate(self) -> bool:
        with self._link.transaction() as cursor:
            return self._has_graph(cursor)

    def optimise(self, *, vector_index: bool) -> None:
        """See `PgvectorIndex.optimise`."""
        missing = vector_index and not self.approximate()
        graph = (tables.DROP_GRAPH, tables.MAKE_GRAPH) if missing else ()  # a build that was killed leaves half of one
        self._link.run_alone(*map(self._names.statement, (*graph, *tables.VACUUM)))

    def close(self) -> None:
        self._link.close()

    def _run(self, cursor: Any, template: str, *values: Any) -> Any:
        return cursor.execute(self._names.statement(template), values)

    def _all(self, template: str, *values: Any) -> list[Any]:
        with self._link.transaction() as cursor:
            return self._run(cursor, template, *values).fetchall()

    def _write(
        self, cursor: Any, rows: Sequence[Row], records: Sequence[Mapping[str, Any]], sources: Mapping[str, str]
    ) -> None:
        hashes = {**dict.fromkeys(row.chunk.source for row in rows), **sources}
        put_source = self._names.statement(tables.PUT_SOURCE)
        cursor.executemany(put_source, [{"source": name, "content_hash": hashes[name]} for name in sorted(hashes)])
        before = dict(self._run(cursor, tables.HOLD_CHUNKS, [record["id"] for record in records]).fetchall())
        cursor.executemany(self._names.put_chunk(), records)
        changed = [row for row in rows if before.get(row.chunk.id) != row.text_key]  # equal texts have equal vectors
        if changed:
            self._write_vectors(cursor, changed)

    def _write_vectors(self, cursor: Any, rows: Sequence[Row]) -> None:
        numbers = dict(self._run(cursor, tables.NUMBERS, [row.chunk.id for row in rows]).fetchall())
        self._run(cursor, tables.DROP_VECTORS, list(numbers.values()))
        with cursor.copy(self._names.statement(tables.COPY_VECTORS)) as copy:
            copy.set_types(["int8", "int4", "vector"])
            for row in rows:
                for place, vector in enumerate(row.vectors):
                    copy.write_row((numbers[row.chunk.id], place, vector))

    def _has_graph(self, cursor: Any) -> bool:
        return cursor.execute(tables.HAS_GRAPH, (self._names.graph,)).fetchone()[0]

    def _widen(self, cursor: Any, candidates: int) -> None:
        """Have the graph look at so many rows in this transaction, and for more where a filter takes them."""
        settings = {"hnsw.ef_search": str(min(candidates, _WIDEST_SEARCH))}
        if self._link.version >= ITERATIVE_FROM:
            settings["hnsw.iterative_scan"] = "relaxed_order"
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, true)", (name, value))


def _records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """In order of ids: two writes that meet take the locks of their chunks in one order."""
    return sorted(map(tables.record, rows), key=lambda record: record["id"])


def _meta(comment: str | None) -> dict[str, Any] | None:
    """What the comment of a table says; None for a comment of somebody else."""
    try:
        meta = json.loads(comment or "null")
    except ValueError:
        return None
    return meta if isinstance(meta, dict) else None
