"""LanceDB as an index: chunks in a table that lies in a folder or in object storage, for any number of machines."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import CtxkitError, IndexLocked, IndexNotFound, StoreError
from ctxkit.protocols import Encoder
from ctxkit.retrieval.fusion import Fusion
from ctxkit.retrieval.storage.settings import EncoderIdentity
from ctxkit_connectors.databases.database import Row, Scored, from_fields, from_meta, needed, to_fields, to_meta
from ctxkit_connectors.databases.index import DatabaseIndex, opened

_META = b"ctxkit"
_REFINE = 4  # candidates per hit whose true MaxSim is computed when an approximate index answers
_INDEXED_FROM_CHUNKS = 10_000
_DIMS_PER_CODE = 8  # dims that share one byte in the approximate index
_CHUNK, _SOURCE = "chunk/", "source/"  # what a key begins with
_FIELDS = list(Chunk.__dataclass_fields__)


class LanceIndex(DatabaseIndex["LanceDatabase"]):
    """Chunks in a table of LanceDB. Any number of processes and machines may read and write.

    Each write is one commit, and a search sees every write that was acknowledged before it began. Vectors are compared
    by cosine, which for rows of length one is the inner product; an all-zero row is never found. Until `optimise` has
    made an approximate index, every search compares all vectors.
    """

    @classmethod
    def open(
        cls,
        place: str | os.PathLike[str],
        table: str = "chunks",
        *,
        encoder: Encoder | None = None,
        create: bool = False,
        fusion: Fusion | None = None,
        exact: bool = False,
        **options: Any,
    ) -> Self:
        """Open the table of that name.

        place: a folder, or a URL of object storage (`s3://bucket/folder`).
        encoder, create, fusion: as `ctxkit.Index.open` takes them.
        exact: compare all vectors even where there is an approximate index.
        options: for `lancedb.connect`, such as `storage_options`.

        Raises IndexNotFound, IndexMismatch, StoreError, and MissingExtra where lancedb is not installed.
        """
        folder = os.fspath(place)
        if "://" not in folder and not create and not Path(folder).is_dir():  # connecting would make the folder
            raise _not_found(folder)
        needed("lancedb", "lancedb", "lancedb")
        options.setdefault("read_consistency_interval", timedelta(0))
        with _typed(folder):
            connection = needed("lancedb", "lancedb", "lancedb").connect(folder, **options)
        find = partial(LanceDatabase.open, connection, folder, table)
        make = partial(LanceDatabase.create, connection, folder, table)
        return cls(opened(find, make, encoder, create), encoder, fusion, exact=exact)

    @classmethod
    def in_memory(cls, *, encoder: Encoder | None = None, fusion: Fusion | None = None) -> Self:
        """An index for this process only."""
        return cls.open("memory://", encoder=encoder, create=True, fusion=fusion)

    def optimise(self, *, vector_index: bool | None = None) -> None:
        """Join small files, bring the database's indexes up to date, and make those that are missing.

        vector_index: make the approximate index (IVF-PQ, of 1/32 of the vectors' size); it needs 256 vectors. None
            makes it where there are 10,000 chunks or more. Its search is the one of XTR (arXiv 2304.01982), and the
            candidates' true MaxSim is computed from the vectors.

        Raises IndexLocked where writers come in between.
        """
        if vector_index is None:
            vector_index = len(self) >= _INDEXED_FROM_CHUNKS
        self._database.optimise(vector_index=vector_index)


class LanceDatabase:
    """The `Database` over one table. A row with a null text is the record of a source."""

    def __init__(self, table: Any, place: str, identity: EncoderIdentity, dims: int) -> None:
        self.place = place
        self.identity = identity
        self._dims = dims
        self._table: Any = table
        self._closed = False

    @classmethod
    def open(cls, connection: Any, place: str, name: str) -> LanceDatabase:
        """Raises IndexNotFound, IndexMismatch or StoreError."""
        with _typed(place):
            try:
                table = connection.open_table(name)
            except (ValueError, FileNotFoundError) as error:
                if "not found" in str(error).lower():
                    raise _not_found(f"{place} ({name})") from error
                raise
            meta = json.loads((table.schema.metadata or {}).get(_META, b"null"))
            identity = from_meta(meta, f"{place} ({name})")
            database = cls(table, place, identity, table.schema.field("vectors").type.value_type.list_size)
            database._ensure_words_index()
        return database

    @classmethod
    def create(cls, connection: Any, place: str, name: str, encoder: Encoder) -> LanceDatabase:
        """Make an empty table, then open it. A table that is there already is opened."""
        meta = json.dumps(to_meta(EncoderIdentity.of(encoder)))
        with _typed(place):
            try:
                schema = _schema(encoder.dims).with_metadata({_META: meta.encode()})
                connection.create_table(name, schema=schema)
            except ValueError as error:
                if "already exists" not in str(error):
                    raise
        return cls.open(connection, place, name)

    def count(self) -> int:
        with self._open() as table:
            return table.count_rows("text IS NOT NULL")

    def sources(self, names: Collection[str] | None = None) -> dict[str, str]:
        where = "text IS NULL" if names is None else _among("key", [_SOURCE + name for name in names])
        found = self._select(["source", "content_hash"], where)
        return dict(zip(found["source"].to_pylist(), found["content_hash"].to_pylist(), strict=True))

    def chunks(self, ids: Collection[str]) -> dict[str, Chunk]:
        found = self._select(_FIELDS, _among("key", [_CHUNK + id_ for id_ in ids]))
        return {fields["id"]: from_fields(fields) for fields in found.to_pylist()}

    def vectors(self, text_keys: Collection[str]) -> dict[str, np.ndarray]:
        found = self._select(["text_key", "vectors"], _among("text_key", text_keys))
        if not len(found):
            return {}
        column = found["vectors"].combine_chunks()
        values = column.values.values.to_numpy().reshape(-1, self._dims)  # [rows, dims]
        bounds = column.offsets.to_numpy()
        keys = found["text_key"].to_pylist()
        return {key: values[start:end] for key, start, end in zip(keys, bounds[:-1], bounds[1:], strict=True)}

    def upsert(self, rows: Sequence[Row], sources: Mapping[str, str]) -> None:
        new = self._arrow(rows, sources)
        with self._open() as table:
            self._merge(table).execute(new)

    def replace(self, rows: Sequence[Row], sources: Mapping[str, str]) -> int:
        new = self._arrow(rows, sources)
        with self._open() as table:
            merge = self._merge(table).when_not_matched_by_source_delete(_among("source", sources))
            return merge.execute(new).num_deleted_rows

    def delete(self, sources: Collection[str], ids: Collection[str]) -> int:
        doomed = _among("source", sources) | _among("key", [_CHUNK + id_ for id_ in ids])
        with self._open() as table:
            records = len(self.sources(sources))
            return table.delete(doomed).num_deleted_rows - records

    def nearest(self, query: np.ndarray, limit: int, sources: Sequence[str] | None, *, exact: bool) -> list[Scored]:
        asked = query[np.any(query, axis=1)]  # a row of zeros scores 0 everywhere, but has no cosine
        if not len(asked):
            return []
        with self._open() as table:
            search = table.search(asked, vector_column_name="vectors").distance_type("cosine")
            search = search.bypass_vector_index() if exact else search.refine_factor(_REFINE)
            found = _limited(search, limit, sources).select(["id", "_distance"]).to_arrow()
        scores = len(asked) - found["_distance"].to_numpy().astype(np.float64)
        return [Scored(id_, score) for id_, score in zip(found["id"].to_pylist(), scores.tolist(), strict=True)]

    def matching(self, words: Sequence[str], limit: int, sources: Sequence[str] | None) -> list[Scored]:
        match = needed("lancedb.query", "lancedb", "lancedb").MatchQuery(" ".join(words), "words")
        with self._open() as table:
            search = _limited(table.search(match, query_type="fts"), limit, sources)
            found = search.select(["id", "_score"]).to_arrow()
        return [Scored(*pair) for pair in zip(found["id"].to_pylist(), found["_score"].to_pylist(), strict=True)]

    def approximate(self) -> bool:
        with self._open() as table:
            return "vectors" in _indexed(table)

    def optimise(self, *, vector_index: bool) -> None:
        """See `LanceIndex.optimise`."""
        kinds = needed("lancedb.index", "lancedb", "lancedb")
        with self._open() as table:
            missing = {"key", "source", "text_key"} - _indexed(table)
            for column in sorted(missing):
                table.create_index(column, config=kinds.BTree())
            if vector_index and "vectors" not in _indexed(table):
                codes, rest = divmod(self._dims, _DIMS_PER_CODE)
                coarse = kinds.IvfFlat(distance_type="cosine")
                config = coarse if rest else kinds.IvfPq(distance_type="cosine", num_sub_vectors=codes)
                table.create_index("vectors", config=config)
            table.optimize()

    def close(self) -> None:
        self._table, self._closed = None, True

    @contextmanager
    def _open(self) -> Iterator[Any]:
        if self._closed:
            raise StoreError(f"{self.place}: the index is closed")
        with _typed(self.place):
            yield self._table

    def _select(self, columns: list[str], where: Any) -> Any:
        with self._open() as table:
            return table.search().where(where).select(columns).limit(None).to_arrow()

    def _merge(self, table: Any) -> Any:
        # By way of an index on the key, two merges at once would not see that they insert the same rows.
        return table.merge_insert("key").use_index(False).when_matched_update_all().when_not_matched_insert_all()

    def _arrow(self, rows: Sequence[Row], sources: Mapping[str, str]) -> Any:
        """The table to merge: chunks, then records of sources."""
        arrow = needed("pyarrow", "pyarrow", "lancedb")
        schema = _schema(self._dims)
        records = [_record(row) for row in rows]
        records += [{"key": _SOURCE + name, "source": name, "content_hash": hash_} for name, hash_ in sources.items()]
        plain = arrow.Table.from_pylist(records, schema=schema)
        vectors = _ragged([row.vectors for row in rows], len(sources), schema.field("vectors").type)
        return plain.set_column(schema.get_field_index("vectors"), schema.field("vectors"), vectors)

    def _ensure_words_index(self) -> None:
        """Lexical search needs the index even of an empty table; a creation that was killed may have left none."""
        if "words" not in _indexed(self._table):
            kinds = needed("lancedb.index", "lancedb", "lancedb")
            as_they_are = {"lower_case": False, "stem": False, "remove_stop_words": False, "ascii_folding": False}
            config = kinds.FTS(base_tokenizer="whitespace", max_token_length=None, **as_they_are)
            self._table.create_index("words", config=config)


def _schema(dims: int) -> Any:
    arrow = needed("pyarrow", "pyarrow", "lancedb")
    text, number = arrow.string(), arrow.int64()
    numbers = ("start_line", "end_line", "start_byte", "end_byte", "page")
    lists = {"title_path": arrow.list_(text), "vectors": arrow.list_(arrow.list_(arrow.float32(), dims))}
    types = {**dict.fromkeys(_FIELDS, text), **dict.fromkeys(numbers, number)}
    types |= dict.fromkeys(("text_key", "words", "content_hash"), text) | lists
    # Named as the key, it lets two merges at once see that they write the same rows; else both would be kept.
    key = arrow.field("key", text, nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
    return arrow.schema([key, *(arrow.field(name, kind) for name, kind in types.items())])


def _record(row: Row) -> dict[str, Any]:
    """All columns of a chunk but its vectors."""
    own = {"key": _CHUNK + row.chunk.id, "text_key": row.text_key, "words": " ".join(row.words) or None}
    return {**to_fields(row.chunk), **own}


def _ragged(vectors: Sequence[np.ndarray], nulls: int, kind: Any) -> Any:
    """Arrow's lists of rows, then so many nulls. Rows of zeros are left out: with one, the whole chunk is not found."""
    arrow = needed("pyarrow", "pyarrow", "lancedb")
    kept = [rows[np.any(rows, axis=1)] if rows.any() else rows for rows in vectors]
    dims = kind.value_type.list_size
    values = np.concatenate([np.zeros((0, dims), np.float32), *kept])  # [rows, dims]
    fixed = arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), dims)
    ends = np.cumsum([0, *map(len, kept)], dtype=np.int32)
    lists = arrow.ListArray.from_arrays(arrow.array(ends), fixed, type=kind)
    return arrow.concat_arrays([lists, arrow.nulls(nulls, kind)])


def _limited(search: Any, limit: int, sources: Sequence[str] | None) -> Any:
    return search.limit(limit) if sources is None else search.where(_among("source", sources)).limit(limit)


def _among(column: str, values: Collection[str]) -> Any:
    expressions = needed("lancedb.expr", "lancedb", "lancedb")
    return expressions.col(column).isin(list(values)) if values else expressions.lit(False)


def _indexed(table: Any) -> set[str]:
    """Columns that have an index."""
    return {column for index in table.list_indices() for column in index.columns}


def _not_found(place: str) -> IndexNotFound:
    return IndexNotFound(f"there is no index at {place}. Make one: LanceIndex.open(..., create=True)")


@contextmanager
def _typed(place: str) -> Iterator[None]:
    """Turn LanceDB's errors, which are builtin ones, into ctxkit's."""
    try:
        yield
    except CtxkitError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        if "commit conflict" in str(error):
            raise IndexLocked(f"{place}: another writer was faster each time. Do it again ({error})") from error
        raise StoreError(
            f"{place}: LanceDB failed ({error}). Look whether the folder or bucket can be reached, and try again"
        ) from error
