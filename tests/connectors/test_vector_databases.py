"""An index in a vector database answers what ctxkit's own exact index answers, and is written and refused like it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from ctxkit.context import Budget
from ctxkit.documents import Chunker
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexLocked, IndexMismatch, IndexNotFound, MissingExtra, StoreError
from ctxkit.pipeline import ClusteredRag, Pipeline, ingest
from ctxkit.protocols import Vectors
from ctxkit.retrieval import (
    HashingEncoder,
    Index,
    MaxSimReranker,
    ReciprocalRankFusion,
    merge,
    reranked,
    retrieve_to_budget,
)
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.lexical import K1
from ctxkit.retrieval.terms import terms
from ctxkit.testing import WhitespaceCounter
from ctxkit_connectors.lancedb import LanceIndex
from ctxkit_connectors.pgvector import PgvectorIndex
from ctxkit_connectors.qdrant import QdrantIndex

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi".split()
QUERIES = ["alpha", "beta gamma gamma", "kappa lambda mu xi", "unknown words", "", "eta unknown"]
MODES = ["hybrid", "dense", "lexical"]
PACKAGES = {"lance": "lancedb", "qdrant": "qdrant_client", "pgvector": "psycopg"}

Opened = Callable[..., Any]


class CountingEncoder(HashingEncoder):
    """Remembers every document text it was asked for."""

    def __init__(self, dims: int = 32, *, multi_vector: bool = False) -> None:
        super().__init__(dims, multi_vector=multi_vector)
        self.seen: list[str] = []

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self.seen += texts
        return super().encode_documents(texts, progress=progress)


class PiecesEncoder(HashingEncoder):
    """One vector per word, as for a text that is longer than a single-vector encoder reads: the best one counts."""

    fingerprint = "pieces"
    multi_vector = False

    def __init__(self) -> None:
        super().__init__(32, multi_vector=True)


@pytest.fixture(params=["single", "multi"])
def encoder(request: pytest.FixtureRequest) -> CountingEncoder:
    return CountingEncoder(multi_vector=request.param == "multi")


@pytest.fixture(params=list(PACKAGES))
def database(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGES[request.param], reason=f"the extra of {PACKAGES[request.param]} is not installed")
    return request.param


@pytest.fixture
def opened(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Opens the database of this test, creating it unless told not to. Qdrant's is in memory, for speed."""
    indexes: list[Any] = []
    client = import_module("qdrant_client").QdrantClient(":memory:") if database == "qdrant" else None
    kind, place = {
        "lance": lambda: (LanceIndex, tmp_path / "db"),
        "qdrant": lambda: (QdrantIndex, client),
        "pgvector": lambda: (PgvectorIndex, request.getfixturevalue("pgvector_url")),
    }[database]()

    def open_(**options: Any) -> Any:
        indexes.append(kind.open(place, **{"create": True, **options}))
        return indexes[-1]

    yield open_
    for index in indexes:
        index.close()
    if client is not None:
        client.close()


def collection(size: int, seed: int = 0) -> list[Chunk]:
    draw = random.Random(seed)
    return [
        Chunk(
            f"c{number:03d}",
            f"{draw.choice('abc')}/{number % 4}.md",
            " ".join(draw.choices(WORDS, k=draw.randint(0, 9))),
            tuple(draw.sample(WORDS, draw.randint(0, 2))),
        )
        for number in range(size)
    ]


def same(hits: Sequence[Any], truth: Sequence[Any], *, scores: float = 1e-4) -> None:
    """Ids in the same order but for scores that differ by a rounding, and all else that a hit says."""
    assert {hit.chunk.id for hit in hits} == {hit.chunk.id for hit in truth}
    by_id = {hit.chunk.id: hit for hit in truth}
    for hit, true in zip(hits, truth, strict=True):
        own = by_id[hit.chunk.id]
        assert hit.score == pytest.approx(true.score, abs=scores) == pytest.approx(own.score, abs=scores)
        assert hit.relevance == pytest.approx(true.relevance, abs=1e-3)
        assert (hit.chunk, hit.rank) == (own.chunk, true.rank)
        assert hit.evidence == own.evidence or own.matches, "by words, where our index knows the tokens' places"


@pytest.mark.parametrize("query", QUERIES)
def test_dense_answers_are_those_of_the_exact_index(opened, encoder, query):
    chunks = collection(300)
    with Index.in_memory(engine="exact", encoder=encoder) as own:
        own.add(chunks)
        index = opened(encoder=encoder)
        index.add(chunks)
        for k in (1, 7, 250):
            same(index.search(query, k, mode="dense"), own.search(query, k, mode="dense"))
        assert [hit.chunk.id for hit in index.search(query, 7, mode="dense")] == [
            hit.chunk.id for hit in own.search(query, 7, mode="dense")
        ]


def test_the_best_of_several_vectors_counts_where_the_encoder_compares_one(opened):
    chunks = collection(60)
    with Index.in_memory(engine="exact", encoder=PiecesEncoder()) as own:
        own.add(chunks)
        index = opened(encoder=PiecesEncoder())
        index.add(chunks)
        same(index.search("beta gamma", 60, mode="dense"), own.search("beta gamma", 60, mode="dense"))


@pytest.mark.parametrize("query", QUERIES)
def test_lexical_answers_are_those_of_the_exact_index_but_for_a_factor(database, opened, encoder, query):
    chunks = [chunk for chunk in collection(200) if chunk.text]  # Lance and Qdrant count no chunks without words
    bags = [terms(" ".join((*chunk.title_path, chunk.text))) for chunk in chunks]
    told = {"mean_words": sum(map(len, bags)) / len(bags)} if database == "qdrant" else {}
    with Index.in_memory(engine="exact", encoder=encoder) as own:
        own.add(chunks)
        index = opened(encoder=encoder, **told)
        index.add(chunks)
        hits, truth = (one.search(query, 200, mode="lexical") for one in (index, own))
    factor = 1 + K1 if database == "lance" else 1.0  # Lance writes BM25 as Robertson did, bm25s as Lucene does
    known = {hit.chunk.id: hit.score for hit in truth}
    assert {hit.chunk.id: hit.score / factor for hit in hits} == pytest.approx(known, abs=1e-4)


def test_lexical_search_finds_all_chunks_that_share_a_word(opened, encoder):
    chunks = collection(200)
    index = opened(encoder=encoder)
    index.add(chunks)
    hits = index.search("kappa lambda", 200, mode="lexical")
    assert {hit.chunk.id for hit in hits} == {
        chunk.id for chunk in chunks if {"kappa", "lambda"} & {*chunk.text.split(), *chunk.title_path}
    }


@pytest.mark.parametrize("query", ["alpha", "kappa lambda mu xi", "unknown words"])
@pytest.mark.parametrize("fusion", [None, ReciprocalRankFusion()], ids=["scores", "ranks"])
def test_a_hybrid_search_is_the_fusion_of_both(opened, encoder, fusion, query):
    index = opened(encoder=encoder, fusion=fusion)
    index.add(collection(80))
    runs = {mode: index.search(query, 200, mode=mode) for mode in ("dense", "lexical")}
    scores: dict[str, float] = {}
    for mode, weight in (("dense", 0.65), ("lexical", 0.35)):
        for hit in runs[mode]:
            own = 1 / (60 + hit.rank) if fusion else weight * max(hit.score, 0) / runs[mode][0].score
            scores[hit.chunk.id] = scores.get(hit.chunk.id, 0) + own
    hits = index.search(query, 200)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)
    places = {(mode, hit.chunk.id): hit.rank for mode, run in runs.items() for hit in run}
    assert all(places[r.method, hit.chunk.id] == r.rank for hit in hits for r in hit.rankings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 40])
def test_filters_are_exact_and_k_allowed_chunks_give_k_hits(opened, encoder, mode, k):
    chunks = collection(400)
    index = opened(encoder=encoder)
    index.add(chunks)
    query = "alpha beta gamma"
    everything = [hit.chunk.id for hit in index.search(query, 400, mode=mode)]
    hits = index.search(query, k, mode=mode, where=lambda c: c.id.endswith("7"), sources=["a/*", "b/?.md", "c/1.md"])
    allowed = {c.id for c in chunks if c.id.endswith("7") and (c.source[0] in "ab" or c.source == "c/1.md")}
    found = [id_ for id_ in everything if id_ in allowed]
    assert len(hits) == min(k, len(found))
    assert {hit.chunk.id for hit in hits} <= allowed
    if mode == "dense":
        assert [hit.chunk.id for hit in hits] == found[:k]
    assert index.search(query, sources=[], mode=mode) == []
    assert index.search(query, sources=["no such source", "x/*"], mode=mode) == []
    assert index.search(query, where=lambda _: False, mode=mode) == []


@pytest.mark.parametrize("mode", MODES)
def test_filtered_answers_are_those_of_the_exact_index(opened, encoder, mode):
    chunks = collection(300)
    filters = {"where": lambda c: "alpha" not in c.text, "sources": ["a/*", "c/3.md"]}
    with Index.in_memory(engine="exact", encoder=encoder) as own:
        own.add(chunks)
        index = opened(encoder=encoder)
        index.add(chunks)
        hits, truth = (one.search("beta eta", 20, mode=mode, **filters) for one in (index, own))
    if mode == "dense":
        same(hits, truth)
    assert len(hits) == len(truth)


def test_equal_scores_come_in_the_order_of_ids_also_at_the_cut(opened, encoder):
    index = opened(encoder=encoder)
    index.add([Chunk(f"n{i:03d}", "a.md", "alpha") for i in range(299, -1, -1)])
    for mode in MODES:
        assert [hit.chunk.id for hit in index.search("alpha", 3, mode=mode)] == ["n000", "n001", "n002"]


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_index_finds_nothing(opened, encoder, mode):
    index = opened(encoder=encoder)
    assert index.search("alpha", mode=mode) == []
    index.add([])
    index.replace_sources([])
    assert index.search("alpha", mode=mode) == []
    assert (len(index), bool(index), index.sources()) == (0, True, {})


def test_a_chunk_comes_back_as_it_went_in(opened, encoder):
    chunk = Chunk("ü'1", "päth/a 'b.md", "naïve 🎉\r\ntext", ("A", "B > C"), 3, 9, 17, 40, 2, {"a": [1, None, "ß"]})
    index = opened(encoder=encoder)
    index.add([chunk])
    index.close()
    index = opened(encoder=encoder, create=False)
    assert index.get("ü'1") == chunk == index.search("naïve")[0].chunk
    assert index.search("naïve", sources=["päth/a 'b.md"])[0].chunk == chunk
    assert index.get("nope") is None
    assert index.delete(ids=["ü'1"]).removed == 1 and len(index) == 0


def test_writing_again_changes_nothing_and_encodes_nothing(opened, encoder):
    index = opened(encoder=encoder)
    chunks = collection(30)
    texts = len(set(map(document_text, chunks)))
    change = index.add([*chunks, chunks[0]])
    assert (change.added, change.encoded) == (30, texts) and len(encoder.seen) == texts
    before = index.search("alpha beta", 30)
    encoder.seen.clear()
    change = index.add(chunks)
    assert (change.added, change.removed, change.encoded) == (30, 0, 0)
    assert len(index) == 30 and not encoder.seen
    assert index.search("alpha beta", 30) == before
    moved = Chunk("new", "z.md", chunks[1].text, chunks[1].title_path)
    assert index.add([moved]).encoded == 0
    changed = Chunk("c001", chunks[1].source, "omega")
    assert index.add([changed]).encoded == 1
    assert index.get("c001") == changed and len(index) == 31


def test_replacing_a_source_leaves_no_chunk_of_before(opened, encoder):
    index = opened(encoder=encoder)
    old = [Chunk(f"a{i}", "a.md", f"alpha {WORDS[i]}") for i in range(4)]
    index.replace_sources([("a.md", "1", old), ("b.md", "1", [Chunk("b", "b.md", "alpha")]), ("empty.md", "1", [])])
    assert index.sources() == {"a.md": "1", "b.md": "1", "empty.md": "1"}
    change = index.replace_source("a.md", "2", [old[0], Chunk("a9", "a.md", "omega")])
    assert (change.added, change.removed, change.encoded) == (2, 3, 1)
    assert {hit.chunk.id for hit in index.search("alpha omega", 9)} == {"a0", "a9", "b"}
    assert index.replace_source("a.md", "3", []).removed == 2
    assert index.sources() == {"a.md": "3", "b.md": "1", "empty.md": "1"}
    assert [hit.chunk.id for hit in index.search("alpha", 9)] == ["b"]
    with pytest.raises(ValueError, match="is of source 'b.md', expected 'a.md'"):
        index.replace_source("a.md", "4", [Chunk("x", "b.md", "x")])


def test_deletes_are_exact(opened, encoder):
    chunks = collection(60)
    index = opened(encoder=encoder)
    index.add(chunks)
    assert index.sources() == dict.fromkeys(sorted({chunk.source for chunk in chunks}), "")
    gone = {chunk.id for chunk in chunks if chunk.source == "a/0.md"} | {"c001", "c002"}
    change = index.delete(sources=["a/0.md", "nope"], ids=["c001", "c002", "nope"])
    assert change.removed == len(gone) and len(index) == 60 - len(gone)
    assert "a/0.md" not in index.sources() and "a/1.md" in index.sources()
    for mode in MODES:
        assert not gone & {hit.chunk.id for hit in index.search(" ".join(WORDS), 60, mode=mode)}
    assert index.delete(sources=[], ids=[]).removed == 0


def test_a_reopened_index_answers_as_before_and_needs_no_encoder_argument(opened):
    index = opened(encoder=HashingEncoder(32, multi_vector=True))
    index.add(collection(40))
    before = index.search("alpha beta", 20)
    index.close()
    again = opened(create=False)
    assert again.search("alpha beta", 20) == before
    assert again.encoder.fingerprint == HashingEncoder(32, multi_vector=True).fingerprint


def test_another_encoder_is_refused(opened, encoder):
    opened(encoder=encoder).close()
    for other in (HashingEncoder(64), HashingEncoder(32, multi_vector=not encoder.multi_vector)):
        with pytest.raises(IndexMismatch, match="was made by encoder 'hashing-32'"):
            opened(encoder=other)
    opened(encoder=encoder)


def test_an_index_that_is_not_there_is_not_made_by_looking(database, opened, encoder, tmp_path):
    with pytest.raises(IndexNotFound, match="create=True"):
        opened(encoder=encoder, create=False)
    opened(encoder=encoder).close()
    name = "collection" if database == "qdrant" else "table"
    with pytest.raises(IndexNotFound, match="other"):
        opened(encoder=encoder, create=False, **{name: "other"})
    for kind in {"lance": [LanceIndex], "qdrant": [QdrantIndex]}.get(database, []):
        with pytest.raises(IndexNotFound, match="nowhere"):
            kind.open(tmp_path / "nowhere", encoder=encoder)
        assert not (tmp_path / "nowhere").exists()


def test_a_closed_index_says_so(opened, encoder):
    index = opened(encoder=encoder)
    index.close()
    index.close()
    with pytest.raises(StoreError, match="the index is closed"):
        index.search("alpha")
    with pytest.raises(StoreError, match="the index is closed"):
        index.add([Chunk("a", "a.md", "alpha")])


def test_wrong_arguments_are_refused(opened, encoder):
    index = opened(encoder=encoder)
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        index.search("a", 0)
    with pytest.raises(ValueError, match="`mode` must be one of hybrid, dense, lexical, got 'bm25'"):
        index.search("a", mode="bm25")
    with pytest.raises(ValueError, match=r"single string 'a.md'"):
        index.search("a", sources="a.md")
    with pytest.raises(ValueError, match="what to delete"):
        index.delete()
    with pytest.raises(ValueError, match=r"single string 'a.md'"):
        index.delete(sources="a.md")
    with pytest.raises(ValueError, match="`metadata` of chunk 'm' must be JSON"):
        index.add([Chunk("m", "a.md", "x", metadata={"a": object()})])
    assert len(index) == 0


def test_a_chunk_that_is_deleted_during_a_search_is_left_out(opened, encoder):
    index = opened(encoder=encoder)
    index.add(collection(20))
    first = index.search("alpha", 1)[0].chunk.id
    chunks = index._database.chunks

    def after_a_delete(ids: Sequence[str]) -> dict[str, Chunk]:
        index._database.chunks = chunks
        index.delete(ids=[first])
        return chunks(ids)

    index._database.chunks = after_a_delete
    hits = index.search("alpha", 5)
    assert first not in {hit.chunk.id for hit in hits} and [hit.rank for hit in hits] == [1, 2, 3, 4, 5]


def test_it_serves_wherever_an_index_does(opened, encoder, write):
    for name in WORDS:
        write(f"docs/{name}.md", f"# {name}\n\nThe {name} of the river, measured in {name} units.\n")
    docs = write("docs/gone.md", "# Gone\n\nNothing.\n").parent
    index, counter = opened(encoder=encoder), WhitespaceCounter()
    chunker = Chunker(encoder.count_batch)
    assert ingest(index, [docs], chunker=chunker, root=docs).chunks == len(WORDS) + 1
    (docs / "gone.md").unlink()
    report = ingest(index, [docs], chunker=chunker, root=docs)
    assert (len(report.unchanged), report.removed) == (len(WORDS), ["gone.md"])

    plan = retrieve_to_budget(index, "alpha river", Budget(60), counter)
    assert plan.prompt_tokens <= 60 and "alpha" in plan.text
    assert Pipeline(index).pack("beta units", counter=counter, budget_tokens=60).passages
    crag = ClusteredRag("representatives", k=2).search(index, "river", budget_tokens=60, counter=counter, mode="dense")
    assert crag.plan.passages
    hits = index.search("gamma river", 5)
    best = reranked(hits, "gamma river", MaxSimReranker(encoder), 2) if encoder.multi_vector else hits
    assert best[0].chunk.source == "gamma.md" and best[0].snippets()


def test_shards_are_merged_into_it_and_nothing_is_encoded(opened, encoder, tmp_path):
    chunks = collection(120)
    shards = [tmp_path / "a", tmp_path / "bc"]
    for shard in shards:
        with Index.open(shard, encoder=encoder, create=True, engine="exact") as own:
            own.add(chunk for chunk in chunks if chunk.source[0] in shard.name)
    encoder.seen.clear()
    assert merge(shards, lambda stored: opened(encoder=stored), encoder=encoder).chunks == 120
    assert not encoder.seen
    with Index.in_memory(engine="exact", encoder=encoder) as own:
        own.add(chunks)
        same(opened(encoder=encoder).search("eta mu", 120, mode="dense"), own.search("eta mu", 120, mode="dense"))


def test_an_optimised_lance_table_answers_the_same_and_finds_what_is_new(tmp_path, encoder):
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    chunks = collection(400)
    lance = LanceIndex.open(tmp_path, encoder=encoder, create=True)
    with Index.in_memory(engine="exact", encoder=encoder) as own, lance as index:
        index.add(chunks)
        index.optimise(vector_index=True)
        assert index._database.approximate()
        index.optimise()
        new = Chunk("new", "new.md", "omega psi")
        for one in (own, index):
            one.add([*chunks, new])
            one.delete(ids=["c007"])
        assert index.search("omega psi", 1)[0].chunk == new
        same(index.search("omega psi", 1, mode="dense"), own.search("omega psi", 1, mode="dense"))
        for query in QUERIES[:4]:
            hits, truth = (one.search(query, 10, mode="dense") for one in (index, own))
            assert len({hit.chunk.id for hit in hits} & {hit.chunk.id for hit in truth}) >= 8
        alone = {"mode": "dense", "sources": ["new.md", "a/1.md"]}
        same(index.search("alpha", 400, **alone), own.search("alpha", 400, **alone))
        index.close()
        exactly = LanceIndex.open(tmp_path, encoder=encoder, exact=True)
        for query in QUERIES[:4]:
            same(exactly.search(query, 400, mode="dense"), own.search(query, 400, mode="dense"))


def test_two_lance_connections_see_each_others_writes(tmp_path, encoder):
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    first = LanceIndex.open(tmp_path, encoder=encoder, create=True)
    second = LanceIndex.open(tmp_path, encoder=encoder, create=True)
    first.add([Chunk("a", "a.md", "alpha")])
    assert [hit.chunk.id for hit in second.search("alpha")] == ["a"]
    second.replace_source("a.md", "2", [Chunk("b", "a.md", "beta")])
    assert [hit.chunk.id for hit in first.search("alpha beta")] == ["b"] and first.sources() == {"a.md": "2"}


@pytest.mark.parametrize("verb", ["add", "replace"])
def test_lance_writers_at_once_leave_each_chunk_once(tmp_path, verb):
    """Both races were lost by duplicates: without a declared key, and where a merge goes by an index on it."""
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    rounds, writers, before = 5, 3, 1000
    with LanceIndex.open(tmp_path, encoder=HashingEncoder(8), create=True) as index:
        index.add([Chunk(f"old/{i}", "old.md", f"beta {i % 10}") for i in range(before)])
        index.optimise()
    together = Barrier(writers)

    def write(_: int) -> None:
        with LanceIndex.open(tmp_path, encoder=HashingEncoder(8)) as own:
            for i in range(rounds):
                chunks = [Chunk(f"{i}/{j}", f"{i}.md", f"alpha {j}") for j in range(4)]
                together.wait(60)
                own.add(chunks) if verb == "add" else own.replace_source(f"{i}.md", "1", chunks)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    with LanceIndex.open(tmp_path) as index:
        assert len(index) == before + 4 * rounds
        assert len(index.sources()) == index._database._table.count_rows("text IS NULL") == 1 + rounds


def test_a_lance_table_of_somebody_else_is_refused(tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    lancedb.connect(tmp_path).create_table("chunks", [{"id": 1}])
    with pytest.raises(StoreError, match="not made by ctxkit"):
        LanceIndex.open(tmp_path, encoder=HashingEncoder(), create=True)


def test_rows_of_zeros_do_not_hide_a_chunk_from_lance():
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")

    class Holes(HashingEncoder):
        def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
            vectors = super().encode_documents(texts, progress=progress)
            vectors.values[::2] = 0
            return vectors

    with LanceIndex.in_memory(encoder=Holes(32, multi_vector=True)) as index:
        index.add([Chunk("a", "a.md", "alpha beta")])
        assert [hit.chunk.id for hit in index.search("alpha beta", mode="dense")] == ["a"]


def test_a_prefetch_by_means_keeps_what_is_near_and_stays_exact_under_filters():
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    encoder, chunks = HashingEncoder(32, multi_vector=True), collection(600)
    with QdrantIndex.open(":memory:", encoder=encoder, create=True, prefetch=300) as index:
        index.add(chunks)
        with Index.in_memory(engine="exact", encoder=encoder) as own:
            own.add(chunks)
            near, all_ = index.search("alpha beta", 5, mode="dense"), own.search("alpha beta", 5, mode="dense")
            assert len({hit.chunk.id for hit in near} & {hit.chunk.id for hit in all_}) >= 3
            few = {"mode": "dense", "where": lambda chunk: chunk.id.endswith("33")}
            same(index.search("alpha beta", 9, **few), own.search("alpha beta", 9, **few))


def test_a_local_qdrant_folder_has_one_owner_and_a_given_client_is_left_open(tmp_path, encoder):
    client_package = pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    with QdrantIndex.open(tmp_path, encoder=encoder, create=True) as index:
        index.replace_source("a.md", "1", [Chunk("a", "a.md", "alpha")])
        found = index.search("alpha")
        with pytest.raises(IndexLocked, match="another client has this folder open"):
            QdrantIndex.open(tmp_path, encoder=encoder)
    with QdrantIndex.open(tmp_path, encoder=encoder) as index:
        assert index.search("alpha") == found and index.sources() == {"a.md": "1"}
    client = client_package.QdrantClient(":memory:")
    with QdrantIndex.open(client, encoder=encoder, create=True) as index:
        index.add([Chunk("a", "a.md", "alpha")])
    with QdrantIndex.open(client, encoder=encoder) as index:
        assert index.get("a") and not index._database.approximate()
    client.create_collection("other", vectors_config={})
    with pytest.raises(StoreError, match="not made by ctxkit"):
        QdrantIndex.open(client, "other", encoder=encoder, create=True)
    for wrong in ({"prefetch": 0}, {"mean_words": 0}):
        with pytest.raises(ValueError, match="must be .* got 0"):
            QdrantIndex.open(client, encoder=encoder, **wrong)
    client.close()


def test_a_server_that_does_not_answer_is_named():
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    with pytest.raises(StoreError, match=r"http://127.0.0.1:9 \(chunks\): Qdrant failed .* try again"):
        QdrantIndex.open("http://127.0.0.1:9", check_compatibility=False)


def test_a_database_that_cannot_be_reached_is_named(tmp_path):
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="LanceDB failed .* try again"):
        LanceIndex.open(tmp_path / "file" / "db", encoder=HashingEncoder(), create=True)


@pytest.mark.parametrize(
    ("package", "open_", "extra"),
    [
        ("lancedb", LanceIndex.in_memory, "lancedb"),
        ("qdrant_client", QdrantIndex.in_memory, "qdrant"),
        ("psycopg", partial(PgvectorIndex.open, "postgresql://127.0.0.1:9/db"), "pgvector"),
    ],
)
def test_what_is_missing_is_named_with_the_extra(monkeypatch, package, open_, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"'\.\[{extra}\]'"):
        open_(encoder=HashingEncoder())
