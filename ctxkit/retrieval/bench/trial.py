"""A trial: one collection, indexed and searched by every method, with what each costs and finds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctxkit.protocols import Encoder
from ctxkit.retrieval.bench.collection import Collection
from ctxkit.retrieval.bench.known import KnownVectors
from ctxkit.retrieval.bench.measures import ndcg, overlap, percentile, recall
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.encoders import HashingEncoder
from ctxkit.retrieval.encoders.loading import needed
from ctxkit.retrieval.index import Index
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit.retrieval.search import Mode
from ctxkit.retrieval.storage.settings import EngineName

K = 10
_WARMING = 3  # searches

SINGLE, BY_TOKEN, NO_VECTORS = "one vector per text", "one vector per token", "no vectors"
_CODED = BuildOptions(exact_below_tokens=0, refine=True)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to search.

    vectors: what is indexed. mode, engine, build: as Index takes them. exact: the method that it approximates.
    """

    vectors: str
    mode: Mode
    engine: EngineName = "auto"
    build: BuildOptions | None = None
    exact: str | None = None

    @property
    def made_of(self) -> tuple[str, str, BuildOptions | None]:
        """Methods with the same share an index."""
        return self.vectors, self.engine, self.build


METHODS: Mapping[str, Method] = {
    "lexical": Method(NO_VECTORS, "lexical"),
    "flat": Method(SINGLE, "dense", "flat"),
    "ivf": Method(SINGLE, "dense", "ivf", exact="flat"),
    "hnsw": Method(SINGLE, "dense", "hnsw", exact="flat"),
    "hybrid": Method(SINGLE, "hybrid", "flat"),
    "multivector-exact": Method(BY_TOKEN, "dense", "exact"),
    "multivector-coded": Method(BY_TOKEN, "dense", "multivector", _CODED, exact="multivector-exact"),
    "multivector-hybrid": Method(BY_TOKEN, "hybrid", "multivector", _CODED),
}
"""By name. Token vectors are coded here however few there are; an index of one's own codes them from
`BuildOptions.exact_below_tokens` on."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the vectors of a collection cost, whatever engine they go to."""

    vectors: str
    encoder: str
    rows: int
    passages_cpu_seconds: float
    query_cpu_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a method costs and finds. The measures are of the first ten; None where there is nothing to compare with.

    build_cpu_seconds: of the index, from vectors that were known. bytes_per_passage: on disk, its text included.
    median_ms, p95_ms: CPU milliseconds per query, from known vectors to hits with evidence; one thread, warm.
    of_exact: the share of the exact search's first ten that it finds.
    """

    method: str
    build_cpu_seconds: float
    bytes_per_passage: float
    median_ms: float
    p95_ms: float
    ndcg: float | None
    recall: float | None
    of_exact: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """A trial's result. Times are of the machine that it ran on."""

    collection: str
    passages: int
    queries: int
    sampled_queries: bool
    judged: bool
    encodings: tuple[Encoding, ...]
    methods: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


def trial(
    collection: Collection,
    methods: Sequence[str] = tuple(METHODS),
    *,
    single: Callable[[], Encoder],
    by_token: Callable[[], Encoder],
    said: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure `methods`, by name, on a collection. What they approximate is searched too, to compare with.

    single, by_token: make the encoders; called only where a method needs one. said: told what is being done.

    All vectors are kept in memory, the indexes in a temporary folder, one at a time. Raises ValueError for a name that
    METHODS lacks.
    """
    if unknown := sorted(set(methods) - METHODS.keys()):
        raise ValueError(f"`methods` must be among {', '.join(METHODS)}, got {', '.join(map(repr, unknown))}")
    also = {METHODS[name].exact for name in methods}
    wanted = [name for name in METHODS if name in methods or name in also]
    encodings: list[Encoding] = []
    runs: dict[str, _Run] = {}
    for vectors, make in ((NO_VECTORS, lambda: HashingEncoder(1)), (SINGLE, single), (BY_TOKEN, by_token)):
        own = [name for name in wanted if METHODS[name].vectors == vectors]
        if own:
            said(f"{collection.name}: encoding {len(collection.passages):,} passages, {vectors}")
            encoder, encoding = _encoded(collection, vectors, make())
            encodings += [encoding] if vectors != NO_VECTORS else []
            runs |= _searched(collection, own, encoder, said)
    return Report(
        collection.name,
        len(collection.passages),
        len(collection.queries),
        collection.sampled,
        bool(collection.grades),
        tuple(encodings),
        tuple(_measured(name, runs, collection) for name in wanted if name in methods),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """found: ids by query. milliseconds: of each query."""

    build_cpu_seconds: float
    bytes_per_passage: float
    found: Mapping[str, Sequence[str]]
    milliseconds: Sequence[float]


def _encoded(collection: Collection, vectors: str, encoder: Encoder) -> tuple[KnownVectors, Encoding]:
    known = KnownVectors(encoder)
    encoder.encode_queries(["warm"])  # loads the model
    began = time.process_time()
    rows = known.learn_documents([document_text(chunk) for chunk in collection.passages])
    between = time.process_time()
    known.learn_queries(list(collection.queries.values()))
    each = (time.process_time() - between) / len(collection.queries)
    return known, Encoding(vectors, encoder.name, rows, between - began, 1000 * each)


def _searched(
    collection: Collection, names: Sequence[str], encoder: Encoder, said: Callable[[str], None]
) -> dict[str, _Run]:
    runs = {}
    for made_of in dict.fromkeys(METHODS[name].made_of for name in names):
        own = [name for name in names if METHODS[name].made_of == made_of]
        said(f"{collection.name}: {', '.join(own)}")
        with tempfile.TemporaryDirectory(prefix="ctxkit-bench-") as place:
            took = _build(collection, METHODS[own[0]], encoder, Path(place))
            with Index.open(place, encoder=encoder) as index, _one_thread():
                size = index.stats().disk_bytes / len(collection.passages)
                for name in own:
                    runs[name] = _Run(took, size, *_timed(collection, METHODS[name].mode, index))
    return runs


def _build(collection: Collection, method: Method, encoder: Encoder, place: Path) -> float:
    """CPU seconds from known vectors to an index that is closed, so that its log is written back."""
    began = time.process_time()
    with Index.open(place, encoder=encoder, create=True, engine=method.engine, build=method.build) as index:
        index.add(collection.passages)
    return time.process_time() - began


def _timed(collection: Collection, mode: Mode, index: Index) -> tuple[dict[str, list[str]], list[float]]:
    found, milliseconds = {}, []
    for text in list(collection.queries.values())[:_WARMING]:  # the first ones read the index into memory
        index.search(text, K, mode=mode)
    for id_, text in collection.queries.items():
        began = time.process_time()
        hits = index.search(text, K, mode=mode)
        milliseconds.append(1000 * (time.process_time() - began))
        found[id_] = [hit.chunk.id for hit in hits]
    return found, milliseconds


def _one_thread() -> Any:
    return needed("threadpoolctl", "threadpoolctl").threadpool_limits(1)


def _measured(name: str, runs: Mapping[str, _Run], collection: Collection) -> Measured:
    run, exact = runs[name], METHODS[name].exact
    judged = [(found, collection.grades[id_]) for id_, found in run.found.items() if id_ in collection.grades]
    compared = [(found, runs[exact].found[id_]) for id_, found in run.found.items()] if exact else []
    return Measured(
        name,
        run.build_cpu_seconds,
        run.bytes_per_passage,
        percentile(run.milliseconds, 0.5),
        percentile(run.milliseconds, 0.95),
        _mean([ndcg(found, grades, K) for found, grades in judged]),
        _mean([recall(found, grades, K) for found, grades in judged]),
        _mean([overlap(found, ids, K) for found, ids in compared]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
