"""The tables of an index in PostgreSQL, and every statement that is run on them."""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval.lexical import K1, B
from ctxkit_connectors.databases.database import Row, needed, to_fields

FIELDS = tuple(Chunk.__dataclass_fields__)

_LONGEST_NAME = 40  # bytes; PostgreSQL cuts names off after 63, and ours are longer by what is put behind
_LARGEST_IN_ROW_DIMS = 2000  # of more, a page holds no row

_CREATE = (
    "CREATE TABLE {sources} (source text PRIMARY KEY, content_hash text NOT NULL)",
    # A word is a number and stands in `words` once; `counts` says how often it occurs, `length` sums them up.
    """CREATE TABLE {chunks} (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL UNIQUE,
        source text NOT NULL REFERENCES {sources} ON DELETE CASCADE,
        text text NOT NULL,
        title_path text[] NOT NULL,
        start_line bigint, end_line bigint, start_byte bigint, end_byte bigint, page bigint,
        metadata text NOT NULL,
        text_key text NOT NULL,
        words bigint[] NOT NULL, counts integer[] NOT NULL, length integer NOT NULL)""",
    """CREATE TABLE {vectors} (
        chunk bigint NOT NULL REFERENCES {chunks} ON DELETE CASCADE,
        place integer NOT NULL,
        embedding vector({dims}) NOT NULL,
        PRIMARY KEY (chunk, place))""",
    "CREATE INDEX ON {chunks} (source)",
    "CREATE INDEX ON {chunks} (text_key)",
    "CREATE INDEX ON {chunks} (length)",  # counting and averaging read this alone
    "CREATE INDEX ON {chunks} USING gin (words)",
    "COMMENT ON TABLE {chunks} IS {meta}",
)
_IN_ROW = "ALTER TABLE {vectors} ALTER embedding SET STORAGE PLAIN"  # beside the row they take a look-up each

MAKE_GRAPH = "CREATE INDEX CONCURRENTLY {graph} ON {vectors} USING hnsw (embedding vector_ip_ops)"
DROP_GRAPH = "DROP INDEX CONCURRENTLY IF EXISTS {graph}"
HAS_GRAPH = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid)"
VACUUM = ("VACUUM (ANALYZE) {chunks}", "VACUUM (ANALYZE) {vectors}", "VACUUM (ANALYZE) {sources}")

# Not by to_regclass, which may remember from before LOCK that there is none.
COMMENT = "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE relname = %s AND pg_table_is_visible(oid)"
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ctxkit ' || %s, 0))"

COUNT = "SELECT count(*) FROM {chunks}"
ALL_SOURCES = "SELECT source, content_hash FROM {sources}"
SOME_SOURCES = "SELECT source, content_hash FROM {sources} WHERE source = ANY(%s)"
CHUNKS = "SELECT {fields} FROM {chunks} WHERE id = ANY(%s)"
VECTORS = """
    SELECT c.text_key, v.embedding
    FROM (SELECT text_key, min(number) AS number FROM {chunks} WHERE text_key = ANY(%s) GROUP BY text_key) c
    JOIN {vectors} v ON v.chunk = c.number
    ORDER BY v.chunk, v.place"""

# The rows of sources are the locks of writers, always taken in order of their names.
PUT_SOURCE = """
    INSERT INTO {sources} AS s VALUES (%(source)s, coalesce(%(content_hash)s::text, ''))
    ON CONFLICT (source) DO UPDATE SET content_hash = coalesce(%(content_hash)s::text, s.content_hash)"""
HOLD_SOURCES = "SELECT FROM {sources} WHERE source = ANY(%s) ORDER BY source FOR UPDATE"
HOLD_CHUNKS = "SELECT id, text_key FROM {chunks} WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
PUT_CHUNK = """
    INSERT INTO {chunks} ({fields}, {more}) VALUES ({values})
    ON CONFLICT (id) DO UPDATE SET {updates}"""
NUMBERS = "SELECT id, number FROM {chunks} WHERE id = ANY(%s)"
DROP_VECTORS = "DELETE FROM {vectors} WHERE chunk = ANY(%s)"
COPY_VECTORS = "COPY {vectors} (chunk, place, embedding) FROM STDIN (FORMAT BINARY)"
DROP_OTHERS = "DELETE FROM {chunks} WHERE source = ANY(%s) AND NOT id = ANY(%s)"
DROP_CHUNKS = "DELETE FROM {chunks} WHERE source = ANY(%s) OR id = ANY(%s)"
DROP_SOURCES = "DELETE FROM {sources} WHERE source = ANY(%s)"

# MaxSim: of each row of the query its best inner product with a chunk, summed up. `<#>` is its negative.
_MAXSIM = """
    best AS (
        SELECT v.chunk, max(-(v.embedding <#> q.row)) AS score
        FROM {vectors} v {joined} CROSS JOIN asked q GROUP BY v.chunk, q.place),
    found AS (
        SELECT chunk, sum(score) AS score FROM best GROUP BY chunk ORDER BY score DESC, chunk LIMIT %(limit)s)
    SELECT c.id, f.score FROM found f JOIN {chunks} c ON c.number = f.chunk ORDER BY f.score DESC, c.id"""
_ASKED = "WITH asked AS (SELECT * FROM unnest(%(query)s::text[]::vector[]) WITH ORDINALITY AS q(row, place))"
_OF_SOURCES = "JOIN {chunks} c ON c.number = v.chunk AND c.source = ANY(%(sources)s)"
_NEAR = """
    near AS (
        SELECT DISTINCT n.chunk FROM asked q CROSS JOIN LATERAL (
            SELECT v.chunk FROM {vectors} v {joined} ORDER BY v.embedding <#> q.row LIMIT %(candidates)s) n)"""

# BM25 as `ctxkit.retrieval.lexical` has it. A filter changes what is found, not how rare a word is.
_MATCHING = """
    WITH totals AS (SELECT count(*)::float8 AS chunks, avg(length)::float8 AS length FROM {chunks}),
    held AS (
        SELECT c.number, c.source, c.length, w.word, c.counts[array_position(c.words, w.word)]::float8 AS times
        FROM unnest(%(words)s::bigint[]) AS w(word) JOIN {chunks} c ON c.words @> ARRAY[w.word]),
    rare AS (SELECT word, count(*)::float8 AS chunks FROM held GROUP BY word),
    found AS (
        SELECT h.number, sum(
            ln(1 + (t.chunks - r.chunks + 0.5) / (r.chunks + 0.5))
            * h.times / (h.times + {k1} * (1 - {b} + {b} * h.length / t.length))) AS score
        FROM held h JOIN rare r USING (word) CROSS JOIN totals t {filter}
        GROUP BY h.number ORDER BY score DESC, h.number LIMIT %(limit)s)
    SELECT c.id, f.score FROM found f JOIN {chunks} c USING (number) ORDER BY f.score DESC, c.id"""


@dataclass(frozen=True)
class Tables:
    """The names of an index's tables, and statements that hold them. name: of the chunks; others begin with it."""

    name: str

    def __post_init__(self) -> None:
        if not self.name or "\0" in self.name or len(self.name.encode()) > _LONGEST_NAME:
            raise ValueError(f"`table` must be a name of 1 to {_LONGEST_NAME} bytes, got {self.name!r}")

    @property
    def graph(self) -> str:
        """The name of the approximate index, quoted."""
        return _sql().Identifier(f"{self.name}_graph").as_string(None)

    def statement(self, template: str, **more: Any) -> Any:
        """`template` with the names of this index."""
        sql = _sql()
        names = {other: sql.Identifier(f"{self.name}_{other}") for other in ("sources", "vectors", "graph")}
        names |= {"chunks": sql.Identifier(self.name), "fields": _listed(FIELDS)}
        return sql.SQL(template).format(**names, **more)

    def creation(self, dims: int, meta: str) -> Iterator[Any]:
        """What makes them, for vectors of so many `dims`. meta: what the index says of itself."""
        sql = _sql()
        for template in _CREATE:
            yield self.statement(template, dims=sql.Literal(dims), meta=sql.Literal(meta))
        if dims <= _LARGEST_IN_ROW_DIMS:
            yield self.statement(_IN_ROW)

    def put_chunk(self) -> Any:
        """Takes what `record` makes."""
        sql = _sql()
        columns = (*FIELDS, *_MORE)
        values = sql.SQL(", ").join(map(sql.Placeholder, columns))
        updates = [sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in columns if name != "id"]
        return self.statement(PUT_CHUNK, more=_listed(_MORE), values=values, updates=sql.SQL(", ").join(updates))

    def nearest(self, *, graph: bool, filtered: bool) -> Any:
        """Takes `query`, `limit`; with `graph` also `candidates`, and where it is filtered `sources`."""
        of_sources = self.statement(_OF_SOURCES if filtered else "")
        if not graph:
            return self.statement(f"{_ASKED}, {_MAXSIM}", joined=of_sources)
        near = self.statement(f"{_ASKED}, {_NEAR}, ", joined=of_sources)
        return near + self.statement(_MAXSIM, joined=_sql().SQL("JOIN near USING (chunk)"))

    def matching(self, *, filtered: bool) -> Any:
        """Takes `words`, as `numbers` makes them, and `limit`, and where it is filtered `sources`."""
        sql = _sql()
        only = sql.SQL("WHERE h.source = ANY(%(sources)s)" if filtered else "")
        return self.statement(_MATCHING, filter=only, k1=sql.Literal(K1), b=sql.Literal(B))


_MORE = ("text_key", "words", "counts", "length")


def record(row: Row) -> dict[str, Any]:
    """All columns of a chunk. Raises ValueError for what no text of PostgreSQL holds, or metadata that is no JSON."""
    chunk = row.chunk
    if any("\0" in text for text in (chunk.id, chunk.source, chunk.text, *chunk.title_path)):
        raise ValueError(f"chunk {chunk.id!r} holds NUL, which PostgreSQL keeps in no text. Leave it out")
    times = Multiset(row.words)
    words = {"words": numbers(times), "counts": list(times.values()), "length": len(row.words)}
    return {**to_fields(chunk), "text_key": row.text_key, **words}


def numbers(words: Collection[str]) -> list[int]:
    """64 bits for each word, signed; two words share a number so rarely that it does not matter."""
    return [int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big", signed=True) for word in words]


def _listed(names: Sequence[str]) -> Any:
    sql = _sql()
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _sql() -> Any:
    return needed("psycopg.sql", "psycopg", "pgvector")
