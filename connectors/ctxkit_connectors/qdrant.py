"""Qdrant as an index: chunks in a collection of a server, or of the client's own local mode for tests."""

from __future__ import annotations

import os
import uuid
from collections import Counter as Multiset
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Self

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexNotFound, StoreError
from ctxkit.protocols import Encoder
from ctxkit.retrieval.fusion import Fusion
from ctxkit.retrieval.lexical import K1, B
from ctxkit.retrieval.storage.settings import EncoderIdentity
from ctxkit_connectors.databases.database import Row, Scored, from_fields, from_meta, needed, to_fields, to_meta
from ctxkit_connectors.databases.index import DatabaseIndex, opened
from ctxkit_connectors.databases.qdrant_link import MEMORY, Link, kind_of

_POINTS = uuid.uuid5(uuid.NAMESPACE_OID, "ctxkit")  # names points; with another, nothing stored is found again
_CHUNK, _SOURCE = "chunk", "source"  # kinds of points
_PAGE = 256  # points per answer
_FLOATS_AT_ONCE = 1 << 20  # per request; about 12 MB of JSON, of the 32 MB that a server takes


class QdrantIndex(DatabaseIndex["QdrantDatabase"]):
    """Chunks in a collection of Qdrant. Any number of processes and machines may read and write.

    A write is several requests: a search may see half of it, and the content hash of a source is recorded last, so that
    a write that was cut short is made again. Do not write the same source from two places at once.

    Vectors of a multi-vector encoder have no graph (Qdrant advises against it): every search compares all of them, or
    the candidates of `prefetch`. Those of a single-vector encoder are found by Qdrant's graph, approximately, once the
    server has built it.
    """

    @classmethod
    def open(
        cls,
        place: Any,
        collection: str = "chunks",
        *,
        encoder: Encoder | None = None,
        create: bool = False,
        fusion: Fusion | None = None,
        exact: bool = False,
        prefetch: int | None = None,
        mean_words: float = 100.0,
        **options: Any,
    ) -> Self:
        """Open the collection of that name.

        place: the server's URL; a folder or ":memory:" for the client's local mode (one process, some thousand
            chunks); or a QdrantClient, which `close` leaves open.
        encoder, create, fusion: as `ctxkit.Index.open` takes them.
        exact: compare all vectors even where there is a graph.
        prefetch: with a multi-vector encoder, compare only so many chunks, those whose mean vector is nearest to the
            query's. None compares all: take it until searches become slow, since what the mean misses is lost.
        mean_words: of a new collection: how many words, stop words left out, its chunks will have on average. Words
            are weighed when they are written, before that can be known; if it is wrong, BM25 is a little off.
        options: for `QdrantClient`, such as `api_key`, `timeout` (seconds) or `prefer_grpc`.

        Raises IndexNotFound, IndexMismatch, IndexLocked (a local folder in use), StoreError, and MissingExtra where
        qdrant-client is not installed.
        """
        if prefetch is not None and prefetch < 1:
            raise ValueError(f"`prefetch` must be at least 1 or None, got {prefetch!r}")
        if not mean_words > 0:
            raise ValueError(f"`mean_words` must be above 0, got {mean_words!r}")
        if kind_of(place) == "path" and not create and not os.path.isdir(place):  # the client would make the folder
            raise _not_found(os.fspath(place))
        link = Link.to(place, collection, options)
        find = partial(QdrantDatabase.open, link, prefetch)
        make = partial(QdrantDatabase.create, link, prefetch, mean_words)
        try:
            return cls(opened(find, make, encoder, create), encoder, fusion, exact=exact)
        except BaseException:
            link.close()
            raise

    @classmethod
    def in_memory(cls, *, encoder: Encoder | None = None, fusion: Fusion | None = None) -> Self:
        """An index for this process only."""
        return cls.open(MEMORY, encoder=encoder, create=True, fusion=fusion)


class QdrantDatabase:
    """The `Database` over one collection. A source's record is a point without vectors.

    Vectors: `rows`, a multivector, compared by MaxSim; `words`, sparse, weighed as BM25 does; of a multi-vector encoder
    also `pooled`, the mean of the rows.
    """

    def __init__(self, link: Link, identity: EncoderIdentity, prefetch: int | None, mean_words: float) -> None:
        self.identity = identity
        self._mean_words = mean_words
        self._link = link
        self._models = _models()
        self._prefetch = prefetch if identity.multi_vector else None

    @classmethod
    def open(cls, link: Link, prefetch: int | None) -> QdrantDatabase:
        """Raises IndexNotFound, IndexMismatch or StoreError."""
        if not link.call("collection_exists"):
            raise _not_found(link.shown)
        there = link.call("get_collection")
        identity = from_meta(there.config.metadata, link.shown)
        if not link.local:  # there they have no effect, and a warning says so
            for name in sorted({"kind", "source", "text_key"} - there.payload_schema.keys()):
                link.call("create_payload_index", field_name=name, field_schema=_models().PayloadSchemaType.KEYWORD)
        return cls(link, identity, prefetch, float(there.config.metadata["mean_words"]))

    @classmethod
    def create(cls, link: Link, prefetch: int | None, mean_words: float, encoder: Encoder) -> QdrantDatabase:
        """Make an empty collection, then open it. One that another process has just made is opened."""
        meta = {**to_meta(EncoderIdentity.of(encoder)), "mean_words": mean_words}
        try:
            link.call("create_collection", **_layout(encoder), metadata=meta)
        except StoreError:
            if not link.call("collection_exists"):
                raise
        return cls.open(link, prefetch)

    @property
    def place(self) -> str:
        return self._link.place

    def count(self) -> int:
        return self._count(must=[self._is("kind", [_CHUNK])])

    def sources(self, names: Collection[str] | None = None) -> dict[str, str]:
        if names is None:
            points: Any = self._scroll(must=[self._is("kind", [_SOURCE])])
        else:
            points = self._link.call("retrieve", ids=[_point_id(_SOURCE, name) for name in names])
        return {point.payload["source"]: point.payload["content_hash"] for point in points}

    def chunks(self, ids: Collection[str]) -> dict[str, Chunk]:
        points = self._link.call("retrieve", ids=[_point_id(_CHUNK, id_) for id_ in ids])
        return {point.payload["id"]: from_fields(point.payload) for point in points}

    def vectors(self, text_keys: Collection[str]) -> dict[str, np.ndarray]:
        wanted = self._scroll(must=[self._is("text_key", text_keys)], with_payload=["text_key"], with_vectors=["rows"])
        return {point.payload["text_key"]: np.array(point.vector["rows"], np.float32) for point in wanted}

    def upsert(self, rows: Sequence[Row], sources: Mapping[str, str]) -> None:
        points: list[Any] = []
        floats = 0
        for row in rows:
            if floats + row.vectors.size > _FLOATS_AT_ONCE and points:
                self._link.call("upsert", points=points)
                points, floats = [], 0
            points.append(self._point(row))
            floats += row.vectors.size
        points += [self._record(name, content_hash) for name, content_hash in sources.items()]
        if points:
            self._link.call("upsert", points=points)

    def replace(self, rows: Sequence[Row], sources: Mapping[str, str]) -> int:
        self.upsert([], dict.fromkeys(sources, ""))  # until all is written, no hash says that it is
        self.upsert(rows, {})
        kept = [self._called([row.chunk.id for row in rows])] if rows else []
        removed = self._delete(must=[self._is("kind", [_CHUNK]), self._is("source", sources)], must_not=kept)
        self.upsert([], sources)
        return removed

    def delete(self, sources: Collection[str], ids: Collection[str]) -> int:
        doomed = [self._is("source", sources)] if sources else []
        doomed += [self._called(ids)] if ids else []
        removed = self._delete(must=[self._is("kind", [_CHUNK])], should=doomed)
        if sources:
            self._delete(must=[self._is("source", sources)])  # their records
        return removed

    def nearest(self, query: np.ndarray, limit: int, sources: Sequence[str] | None, *, exact: bool) -> list[Scored]:
        first: dict[str, Any] = {}
        if self._prefetch is not None and not exact:
            pooled = {"query": _mean(query), "using": "pooled", "limit": max(limit, self._prefetch)}
            first = {"prefetch": self._models.Prefetch(**pooled, filter=self._of(sources))}
        if exact and not self._link.local:
            first = {"search_params": self._models.SearchParams(exact=True)}
        return self._query(query.tolist(), "rows", limit, sources, **first)

    def matching(self, words: Sequence[str], limit: int, sources: Sequence[str] | None) -> list[Scored]:
        weights = {_number(word): 1.0 for word in words}
        return self._query(self._sparse(weights), "words", limit, sources)

    def approximate(self) -> bool:
        return self._prefetch is not None or not (self._link.local or self.identity.multi_vector)

    def close(self) -> None:
        self._link.close()

    def _query(self, query: Any, using: str, limit: int, sources: Sequence[str] | None, **more: Any) -> list[Scored]:
        found = self._link.call(
            "query_points",
            query=query,
            using=using,
            limit=limit,
            query_filter=self._of(sources),
            with_payload=["id"],
            **more,
        )
        return [Scored(point.payload["id"], point.score) for point in found.points]

    def _scroll(self, must: list[Any], **what: Any) -> Iterator[Any]:
        following = None
        while True:
            points, following = self._link.call(
                "scroll", scroll_filter=self._models.Filter(must=must), limit=_PAGE, offset=following, **what
            )
            yield from points
            if following is None:
                return

    def _count(self, **conditions: Any) -> int:
        return self._link.call("count", count_filter=self._models.Filter(**conditions), exact=True).count

    def _delete(self, **conditions: Any) -> int:
        """Deletes points; returns how many there were just before."""
        there = self._count(**conditions)
        if there:
            selector = self._models.FilterSelector(filter=self._models.Filter(**conditions))
            self._link.call("delete", points_selector=selector)
        return there

    def _is(self, name: str, values: Collection[str]) -> Any:
        return self._models.FieldCondition(key=name, match=self._models.MatchAny(any=list(values)))

    def _called(self, ids: Collection[str]) -> Any:
        return self._models.HasIdCondition(has_id=[_point_id(_CHUNK, id_) for id_ in ids])

    def _of(self, sources: Sequence[str] | None) -> Any:
        return None if sources is None else self._models.Filter(must=[self._is("source", sources)])

    def _sparse(self, weights: Mapping[int, float]) -> Any:
        return self._models.SparseVector(indices=list(weights), values=list(weights.values()))

    def _point(self, row: Row) -> Any:
        vector: dict[str, Any] = {"rows": row.vectors.tolist()}
        if self.identity.multi_vector:
            vector["pooled"] = _mean(row.vectors)
        if row.words:
            vector["words"] = self._sparse(_weights(row.words, self._mean_words))
        payload = {**to_fields(row.chunk), "kind": _CHUNK, "text_key": row.text_key}
        return self._models.PointStruct(id=_point_id(_CHUNK, row.chunk.id), vector=vector, payload=payload)

    def _record(self, source: str, content_hash: str) -> Any:
        payload = {"kind": _SOURCE, "source": source, "content_hash": content_hash}
        return self._models.PointStruct(id=_point_id(_SOURCE, source), vector={}, payload=payload)


def _layout(encoder: Encoder) -> dict[str, Any]:
    """What a collection is made of; see `QdrantDatabase`."""
    models = _models()
    maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    no_graph = models.HnswConfigDiff(m=0) if encoder.multi_vector else None
    plain = {"size": encoder.dims, "distance": models.Distance.DOT}  # rows have length one
    vectors = {"rows": models.VectorParams(**plain, multivector_config=maxsim, hnsw_config=no_graph)}
    if encoder.multi_vector:
        vectors["pooled"] = models.VectorParams(**plain)
    words = models.SparseVectorParams(modifier=models.Modifier.IDF)
    return {"vectors_config": vectors, "sparse_vectors_config": {"words": words}}


def _weights(words: Sequence[str], mean_words: float) -> dict[int, float]:
    """What each word adds to the score of a chunk that holds these, but for the rareness that Qdrant multiplies by."""
    length = K1 * (1 - B + B * len(words) / mean_words)
    weights: dict[int, float] = {}
    for word, times in Multiset(words).items():
        weights[_number(word)] = times / (times + length)
    return weights


def _number(word: str) -> int:
    """The dimension of a word, of 2**32; two words share one so rarely that it does not matter."""
    return int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big")


def _point_id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_POINTS, f"{kind}/{name}"))


def _mean(rows: np.ndarray) -> list[float]:
    """The mean of float32 [rows, dims], of length one."""
    mean = rows.mean(axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).tolist()


def _models() -> Any:
    return needed("qdrant_client.models", "qdrant-client", "qdrant")


def _not_found(place: str) -> IndexNotFound:
    return IndexNotFound(f"there is no index at {place}. Make one: QdrantIndex.open(..., create=True)")
