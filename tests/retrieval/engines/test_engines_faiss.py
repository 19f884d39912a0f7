"""What the face of an engine says, of every engine over faiss; and what each says of itself."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines.base import Engine
from ctxkit.retrieval.engines.faiss_ann import HnswEngine, IvfEngine
from ctxkit.retrieval.engines.faiss_flat import FlatEngine
from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions
from ctxkit.retrieval.engines.token_ann import TokenAnnEngine, TokenAnnOptions
from ctxkit.retrieval.engines.tokens import FaissTokens

FEW = TokenAnnOptions(depth_tokens=100, rerank_documents=30)
ENGINES = {
    "flat": FlatEngine,
    "ivf, still flat": IvfEngine,
    "ivf": lambda: IvfEngine(IvfOptions(probes=6, flat_below_rows=100)),
    "ivf, narrow": lambda: IvfEngine(IvfOptions(probes=1, lists=12, flat_below_rows=100)),
    "ivf sq8": lambda: IvfEngine(IvfOptions(probes=6, code="sq8", flat_below_rows=100)),
    "hnsw, still flat": HnswEngine,
    "hnsw": lambda: HnswEngine(HnswOptions(links=8, ef_search=32, flat_below_rows=100)),
    "tokens in ivf pq": lambda: TokenAnnEngine(
        FaissTokens(IvfOptions(code="pq64x4fs", probes=8, flat_below_rows=0)), FEW
    ),
    "tokens in ivf sq8": lambda: TokenAnnEngine(FaissTokens(IvfOptions(code="sq8", flat_below_rows=0)), FEW),
    "tokens in hnsw": lambda: TokenAnnEngine(FaissTokens(HnswOptions(links=8, flat_below_rows=0)), FEW),
    "tokens, still flat": lambda: TokenAnnEngine(FaissTokens(), FEW),
}
EXACT = ["flat"]
RECALL = {"ivf, narrow": 0.5}  # one list of twelve
MULTI_VECTOR = [name for name in ENGINES if name.startswith("tokens")]
SHARES = (0.0, 0.004, 0.03, 0.3, 0.9)


@pytest.fixture(params=ENGINES, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def documents(name, clustered):
    return clustered(1200, rows_each=6 if name in MULTI_VECTOR else 1)


@pytest.fixture(scope="module")
def engine(name, documents) -> Engine:
    made = ENGINES[name]()
    made.add(documents)
    return made


@pytest.fixture(scope="module")
def queries(name, clustered):
    """[20, rows, dims], around one of the directions each."""
    values = clustered(20, seed=7).values
    if name not in MULTI_VECTOR:
        return values[:, None]
    noise = np.random.default_rng(8).standard_normal((20, 5, values.shape[1]))
    return (values[:, None] + 0.05 * noise).astype(np.float32)


def masks(count: int, seed: int = 3) -> list[np.ndarray | None]:
    rng = np.random.default_rng(seed)
    return [None, *(rng.random(count) < share for share in SHARES)]


def best_of(scores: np.ndarray, allowed: np.ndarray | None, depth: int, *, ties: bool) -> list[int]:
    """What brute force ranks first."""
    possible = np.isfinite(scores) if allowed is None else np.isfinite(scores) & allowed
    order = sorted(np.flatnonzero(possible), key=lambda i: (-scores[i], i))
    if not ties or len(order) <= depth:
        return order[:depth]
    return [i for i in order if scores[i] >= scores[order[depth - 1]]]


def test_only_exact_engines_say_that_they_are(name, engine):
    assert engine.exact is (name in EXACT)


def test_only_what_is_allowed_and_as_many_as_may_be(engine, documents, queries):
    for allowed in masks(len(documents)):
        possible = len(documents) if allowed is None else int(allowed.sum())
        for depth in (1, 10, 150, len(documents) + 5):
            run = engine.search(queries[0], depth, allowed)
            assert allowed is None or allowed[run.positions].all()
            assert len(run) == min(depth, possible)  # nothing ties in these vectors


def test_best_first_and_equal_scores_by_the_lower_number(engine, documents, queries):
    for allowed in masks(len(documents)):
        run = engine.search(queries[1], 40, allowed)
        assert run.positions.dtype == np.int64 and run.scores.dtype == np.float64
        assert len(set(run.positions.tolist())) == len(run)
        assert list(zip(-run.scores, run.positions, strict=True)) == sorted(
            zip(-run.scores, run.positions, strict=True)
        )


def test_what_brute_force_finds_is_found(name, engine, documents, queries, brute):
    for allowed in masks(len(documents)):
        found = wanted = 0
        for query in queries:
            truth = best_of(brute(documents, query), allowed, 10, ties=False)
            run = engine.search(query, 10, allowed)
            found, wanted = found + len(set(truth) & set(run.positions.tolist())), wanted + len(truth)
        assert found >= RECALL.get(name, 0.9) * wanted
        if name in EXACT or "still flat" in name and name not in MULTI_VECTOR:
            assert found == wanted


def test_scores_are_those_of_the_vectors(name, engine, documents, queries, brute):
    run = engine.search(queries[2], 10)
    close = 0.02 if "sq8" in name or name in MULTI_VECTOR else 1e-5
    assert np.allclose(run.scores, brute(documents, queries[2])[run.positions], atol=close)


def test_the_next_search_finds_what_was_added_and_numbers_stay(name, clustered):
    rows = 3 if name in MULTI_VECTOR else 1
    first, second = clustered(400, rows, seed=1), clustered(300, rows, seed=2)
    engine = ENGINES[name]()
    engine.add(first)
    before = engine.search(first[7], 1)
    assert before.positions.tolist() == [7] and len(engine) == 400
    engine.add(second)
    assert len(engine) == 700
    assert engine.search(first[7], 1).positions.tolist() == [7]
    found = [engine.search(second[i], 1).positions.tolist() == [400 + i] for i in range(0, 300, 10)]
    assert sum(found) >= 27


def test_many_adds_are_one_add(name, clustered, brute):
    rows = 3 if name in MULTI_VECTOR else 1
    whole = clustered(500, rows, seed=5)
    engine, at_once = ENGINES[name](), ENGINES[name]()
    at_once.add(whole)
    for start in range(0, 500, 50):
        own = whole.offsets[start : start + 51]
        engine.add(Vectors(whole.values[own[0] : own[-1]], own - own[0]))
    query = clustered(1, seed=6).values
    truth = set(best_of(brute(whole, query), None, 10, ties=False))
    for made in (engine, at_once):
        assert len(truth & set(made.search(query, 10).positions.tolist())) >= 10 * RECALL.get(name, 0.9)


def test_an_empty_engine_finds_nothing(name):
    engine = ENGINES[name]()
    query = np.ones((1, 8), np.float32)
    assert len(engine) == 0 and len(engine.search(query, 5)) == 0
    assert len(engine.search(query, 5, np.zeros(0, bool))) == 0
    engine.add(Vectors(np.zeros((0, 64), np.float32), np.zeros(1, np.int64)))
    assert len(engine) == 0 and len(engine.search(query, 5)) == 0


def test_a_single_document_is_found(name, clustered):
    engine = ENGINES[name]()
    one = clustered(1)
    engine.add(one)
    assert engine.search(one.values, 5).positions.tolist() == [0]
    assert len(engine.search(one.values, 5, np.array([False]))) == 0


def test_a_document_without_rows_is_counted_and_not_found(name, clustered):
    engine = ENGINES[name]()
    rows = clustered(3).values
    engine.add(Vectors(rows[:2], np.array([0, 0, 1, 1, 2], np.int64)))
    engine.add(Vectors(rows[:0], np.array([0, 0], np.int64)))
    engine.add(Vectors(rows[2:], np.array([0, 1], np.int64)))
    assert len(engine) == 6
    assert sorted(engine.search(rows[:1], 9).positions) == [1, 3, 5]
    assert engine.search(rows[:1], 9, np.array([1, 0, 1, 1, 1, 0], bool)).positions.tolist() == [3]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (Vectors(np.ones((2, 8), np.float32), np.array([0, 2])), "dims 64, got shape"),
        (Vectors(np.ones(2, np.float32), np.array([0, 2])), "must be"),
        (Vectors(np.ones((2, 64), np.float32), np.array([0, 1])), "must rise"),
        (Vectors(np.ones((2, 64), np.float32), np.array([0, 2, 1, 2])), "must rise"),
        (Vectors(np.full((1, 64), np.nan, np.float32), np.array([0, 1])), "NaN"),
    ],
)
def test_malformed_vectors_are_refused_and_change_nothing(engine, documents, vectors, message):
    with pytest.raises(ValueError, match=message):
        engine.add(vectors)
    assert len(engine) == len(documents)
    assert len(engine.search(documents[0][:1], 3)) == 3


@pytest.mark.parametrize(
    ("query", "depth", "allowed", "message"),
    [
        (np.ones((1, 8), np.float32), 3, None, "`query` must be"),
        (np.ones(64, np.float32), 3, None, "`query` must be"),
        (np.full((1, 64), np.inf, np.float32), 3, None, "infinity"),
        (np.ones((1, 64), np.float32), 0, None, "`depth` must be at least 1, got 0"),
        (np.ones((1, 64), np.float32), 3, np.ones(7, bool), r"`allowed` must be bool \[1200\]"),
        (np.ones((1, 64), np.float32), 3, np.ones(1200, int), r"`allowed` must be bool \[1200\]"),
    ],
)
def test_malformed_searches_are_refused(engine, query, depth, allowed, message):
    with pytest.raises(ValueError, match=message):
        engine.search(query, depth, allowed)


def test_a_single_vector_engine_takes_one_query_row(name, engine):
    query = np.ones((2, 64), np.float32)
    if name in MULTI_VECTOR:
        assert len(engine.search(query, 3)) == 3
        assert engine.search(query[:0], 3).positions.tolist() == [0, 1, 2]  # nothing asked, all alike
    else:
        with pytest.raises(ValueError, match="must have 1 row, got 2"):
            engine.search(query, 3)


# Exactness


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 4), max_size=60),
    depth=st.integers(1, 30),
    share=st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]),
    grid=st.sampled_from([1, 8]),
)
@pytest.mark.parametrize("make", [FlatEngine, IvfEngine, HnswEngine])
def test_flat_search_is_brute_force_with_all_ties(make, brute, seed, counts, depth, share, grid):
    """Products of such rows are exact in float32, and often equal."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    vectors = Vectors((rng.integers(-grid, grid + 1, (offsets[-1], 5)) / grid).astype(np.float32), offsets)
    query = (rng.integers(-grid, grid + 1, (1, 5)) / grid).astype(np.float32)
    allowed = None if share is None else rng.random(len(counts)) < share
    engine = make()
    engine.add(vectors)
    run = engine.search(query, depth, allowed)
    scores = brute(vectors, query)
    assert run.positions.tolist() == best_of(scores, allowed, depth, ties=engine.exact)
    assert run.scores.tolist() == scores[run.positions].tolist()


@pytest.mark.parametrize(("make", "found"), [(FlatEngine, 1000), (IvfEngine, 3), (HnswEngine, 3)])
def test_of_a_thousand_ties_all_are_returned_or_the_first(make, found):
    engine = make()
    engine.add(Vectors(np.ones((1000, 4), np.float32), np.arange(1001)))
    assert engine.search(np.ones((1, 4), np.float32), 3).positions.tolist() == list(range(found))


# Options and training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: IvfOptions(lists=0), "`lists`"),
        (lambda: IvfOptions(probes=0), "`probes`"),
        (lambda: IvfOptions(code="pq8"), "`code` must be one of flat, sq8, pq64, pq64x4fs, got 'pq8'"),
        (lambda: IvfOptions(flat_below_rows=-1), "`flat_below_rows`"),
        (lambda: IvfOptions(retrain_growth_times=1.0), "`retrain_growth_times`"),
        (lambda: HnswOptions(links=1), "`links`"),
        (lambda: HnswOptions(ef_search=0), "`ef_search`"),
        (lambda: HnswOptions(ef_construction=0), "`ef_construction`"),
        (lambda: HnswOptions(flat_below_rows=-1), "`flat_below_rows`"),
        (lambda: TokenAnnOptions(depth_tokens=0), "`depth_tokens`"),
        (lambda: TokenAnnOptions(rerank_documents=0), "`rerank_documents`"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        options()


def test_lists_are_made_when_there_are_rows_for_them_and_again_at_four_times_as_many(clustered, capfd):
    engine = IvfEngine(IvfOptions(lists=10, flat_below_rows=100))
    trained = []
    for seed in range(20):
        engine.add(clustered(100, seed=seed))
        trained.append(engine.trained_rows)
    assert trained == [0] * 3 + [400] * 12 + [1600] * 5  # 39 rows for each of 10 lists are there with 400
    assert "WARNING" not in "".join(capfd.readouterr())


def test_a_graph_is_made_once(clustered):
    engine = HnswEngine(HnswOptions(links=4, flat_below_rows=150))
    trained = []
    for seed in range(8):
        engine.add(clustered(100, seed=seed))
        trained.append(engine.trained_rows)
    assert trained == [0] + [200] * 7


def test_product_codes_need_dims_that_64_divides(clustered):
    engine = IvfEngine(IvfOptions(code="pq64"))
    with pytest.raises(ValueError, match='needs dims that 64 divides, got 48. Take "sq8"'):
        engine.add(clustered(5, dims=48))
    assert len(engine) == 0
    engine.add(clustered(5, dims=64))
    assert len(engine) == 5


def test_codes_survive_new_lists(clustered, brute):
    """With sq8 the rows of the first lists are coded from what they were decoded to."""
    parts = [clustered(count, seed=count) for count in (400, 1200)]
    engine = IvfEngine(IvfOptions(code="sq8", flat_below_rows=100))
    for part in parts:
        engine.add(part)
    assert engine.trained_rows == 1600
    whole = Vectors(np.concatenate([part.values for part in parts]), np.arange(1601))
    found = 0
    for query in clustered(20, seed=9).values:
        truth = best_of(brute(whole, query[None]), None, 10, ties=False)
        found += len(set(truth) & set(engine.search(query[None], 10).positions.tolist()))
    assert found >= 190


def test_64_byte_codes_heed_filters_and_are_not_trained_for_what_is_not_used(clustered):
    """Built past the least rows, whose training takes seconds. Not the recall of a trained code."""
    recipe, values = IvfOptions(code="pq64", lists=4), clustered(300).values
    assert recipe.least_rows(64) == 10_000 and IvfOptions(code="pq64", flat_below_rows=0).least_rows(64) == 9_984
    index = recipe.build(faiss, values)
    assert not index.do_polysemous_training and index.code_size == 64
    mask = np.arange(300) % 3 == 0
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    _, rows = recipe.search(faiss, index, values[:5], 150, None, selector)
    assert ((rows >= 0).sum(axis=1) == 100).all() and mask[rows[rows >= 0]].all()
