"""A search answers what brute force answers, for every encoder and mode."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index, ReciprocalRankFusion, ScoreFusion
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.terms import terms

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
]
QUERIES = ["alpha", "beta gamma gamma", "kappa lambda mu xi", "unknown words", "", "eta unknown"]
MODES = ["hybrid", "dense", "lexical"]


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


def dense_scores(encoder: HashingEncoder, query: str, chunks: list[Chunk]) -> dict[str, float]:
    asked = encoder.encode_queries([query])[0]
    rows = {chunk.id: encoder.encode_documents([document_text(chunk)])[0] for chunk in chunks}
    return {id_: round(float((values @ asked.T).max(axis=0).sum()), 6) for id_, values in rows.items()}


def lexical_scores(query: str, chunks: list[Chunk]) -> dict[str, float]:
    bags = {chunk.id: Counter(terms(" ".join((*chunk.title_path, chunk.text)))) for chunk in chunks}
    mean = sum(bag.total() for bag in bags.values()) / len(bags)
    scores = dict.fromkeys(bags, 0.0)
    for term in set(terms(query)):
        holders = sum(term in bag for bag in bags.values())
        idf = math.log(1 + (len(bags) - holders + 0.5) / (holders + 0.5))
        for id_, bag in bags.items():
            scores[id_] += idf * bag[term] / (bag[term] + 1.2 * (0.25 + 0.75 * bag.total() / mean))
    return {id_: score for id_, score in scores.items() if score > 0}


def ranked(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda id_: (-scores[id_], id_))


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_a_search_is_what_brute_force_says(encoder, mode, query):
    chunks = collection(80)
    with Index.in_memory(engine="exact", encoder=encoder) as index:
        index.add(chunks)
        hits = index.search(query, 200, mode=mode)
    truth = dense_scores(encoder, query, chunks) if mode == "dense" else lexical_scores(query, chunks)
    assert {hit.chunk.id for hit in hits} == set(truth)
    assert [hit.score for hit in hits] == pytest.approx([truth[id_] for id_ in ranked(truth)], abs=3e-6)
    assert [truth[hit.chunk.id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=3e-6)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("fusion", [ScoreFusion(), ReciprocalRankFusion()], ids=lambda fusion: fusion.kind)
def test_a_hybrid_search_is_the_fusion_of_both(encoder, fusion, query):
    with Index.in_memory(engine="exact", encoder=encoder, fusion=fusion) as index:
        index.add(collection(80))
        runs = {mode: index.search(query, 200, mode=mode) for mode in ("dense", "lexical")}
        hits = index.search(query, 200)
    scores: Counter[str] = Counter()
    for mode, run in runs.items():
        for hit in run:
            weight = {"dense": 0.65, "lexical": 0.35}[mode]
            by_score = weight * max(hit.score, 0) / run[0].score if run[0].score > 0 else 0.0
            scores[hit.chunk.id] += by_score if fusion.kind == "scores" else 1 / (60 + hit.rank)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-6)
    assert all(scores[hit.chunk.id] == pytest.approx(hit.score, abs=1e-6) for hit in hits)
    places = {(mode, hit.chunk.id): hit.rank for mode, run in runs.items() for hit in run}
    assert all(places[r.method, hit.chunk.id] == r.rank for hit in hits for r in hit.rankings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 3, 40])
def test_filters_are_exact_and_k_allowed_chunks_give_k_hits(encoder, mode, k):
    chunks = collection(60)
    query = "alpha beta gamma"
    with Index.in_memory(engine="exact", encoder=encoder) as index:
        index.add(chunks)
        everything = [hit.chunk.id for hit in index.search(query, 60, mode=mode)]
        hits = index.search(query, k, mode=mode, where=lambda c: c.id.endswith("7"), sources=["a/*", "b/?.md"])
    allowed = [c.id for c in chunks if c.id.endswith("7") and c.source[0] in "ab"]
    found = [id_ for id_ in everything if id_ in allowed]
    assert len(hits) == min(k, len(found))
    if mode != "hybrid":  # fused scores are scaled by the best hit, which a filter may take away
        assert [hit.chunk.id for hit in hits] == found[:k]
    assert {hit.chunk.id for hit in hits} <= set(allowed)


@pytest.mark.parametrize("mode", MODES)
def test_ranks_count_from_one_scores_fall_and_relevance_falls_strictly(encoder, mode):
    with Index.in_memory(engine="exact", encoder=encoder) as index:
        index.add(collection(50))
        hits = index.search("alpha beta", 50, mode=mode)
        assert [h.chunk.id for h in index.search("alpha beta", 5, mode=mode)] == [h.chunk.id for h in hits[:5]]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    for first, second in pairwise(hits):
        assert (-first.score, first.chunk.id) < (-second.score, second.chunk.id)
        assert 1 > first.relevance > second.relevance > 0


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_index_finds_nothing(encoder, mode):
    with Index.in_memory(engine="exact", encoder=encoder) as index:
        assert index.search("alpha", mode=mode) == []
        index.add([])
        assert index.search("alpha", mode=mode) == []
        assert (len(index), bool(index), index.sources()) == (0, True, {})


@pytest.mark.parametrize("mode", MODES)
def test_chunks_without_a_single_word_do_no_harm(encoder, mode, chunk):
    with Index.in_memory(engine="exact", encoder=encoder) as index:
        index.add([chunk("", id="empty"), chunk("the of and", id="stop"), chunk("…", id="dots")])
        assert len(index.search("the alpha", mode=mode)) == (0 if mode == "lexical" else 3)


def test_one_segment_or_many_give_the_same_answers(encoder):
    chunks = collection(40)
    with (
        Index.in_memory(engine="exact", encoder=encoder) as whole,
        Index.in_memory(engine="exact", encoder=encoder) as pieces,
    ):
        whole.add(chunks)
        for chunk in reversed(chunks):
            pieces.add([chunk])
        for query in QUERIES:
            assert whole.search(query, 40) == pieces.search(query, 40)
        assert pieces.stats().files <= 1 + math.log2(pieces.stats().vector_rows)


def test_a_reopened_index_needs_no_encoder_argument(encoder, tmp_path):
    with Index.open(tmp_path / "x", encoder=encoder, engine="exact", create=True) as index:
        index.add(collection(20))
        before = index.search("alpha beta", 20)
    with Index.open(tmp_path / "x") as index:
        assert index.search("alpha beta", 20) == before
        assert index.encoder.fingerprint == encoder.fingerprint


def test_a_chunk_comes_back_as_it_went_in(encoder, tmp_path):
    chunk = Chunk("ü1", "päth/a b.md", "naïve 🎉\r\ntext", ("A", "B > C"), 3, 9, 17, 40, 2, {"a": [1, None, "ß"]})
    with Index.open(tmp_path, encoder=encoder, engine="exact", create=True) as index:
        index.add([chunk])
    with Index.open(tmp_path) as index:
        assert index.get("ü1") == chunk == index.search("naïve")[0].chunk
        assert index.get("nope") is None


def test_wrong_arguments_are_refused(encoder, chunk):
    with Index.in_memory(engine="exact", encoder=encoder) as index:
        with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
            index.search("a", 0)
        with pytest.raises(ValueError, match="`mode` must be one of hybrid, dense, lexical, got 'bm25'"):
            index.search("a", mode="bm25")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="single string 'a.md'"):
            index.search("a", sources="a.md")
        with pytest.raises(ValueError, match="what to delete"):
            index.delete()
        with pytest.raises(ValueError, match="is of source 'b.md', expected 'a.md'"):
            index.replace_source("a.md", "1", [chunk("x", source="b.md")])
        with pytest.raises(ValueError, match="`metadata` of chunk 'm' must be JSON"):
            index.add([chunk("x", id="m", metadata={"a": object()})])
        assert len(index) == 0


def test_hashed_vectors_have_length_one(encoder):
    vectors = encoder.encode_documents(["one two", "", "three"])
    assert np.linalg.norm(vectors.values, axis=1) == pytest.approx(np.ones(len(vectors.values)), abs=1e-5)
    assert len(vectors) == 3
    assert len(vectors[0]) == (2 if encoder.multi_vector else 1)
