"""The engine answers what brute force answers, where it looks at everything; filters are exact everywhere."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine, SearchOptions
from ctxkit_kernels import Kernels, all_kernels

EVERYTHING = SearchOptions(10**6, 10**9, 10**6, 10**6, 0)
thorough = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
each_path = pytest.mark.parametrize("kernels", all_kernels(), ids=lambda kernels: kernels.name)


def unit_rows(rng: np.random.Generator, rows: int, dims: int) -> np.ndarray:
    values = rng.standard_normal((rows, dims)).astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def collection(seed: int, documents: int, dims: int, most_tokens: int = 9) -> Vectors:
    """Documents of 0 to `most_tokens` tokens, each near one of a few directions."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most_tokens + 1, documents)
    topics = unit_rows(rng, 12, dims)
    values = topics[rng.integers(0, 12, counts.sum())] + 0.4 * unit_rows(rng, counts.sum(), dims)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return Vectors(values.astype(np.float32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def brute_force(engine: MultiVectorEngine, query: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """MaxSim of every document, by the vectors that the engine decodes to, and all similarities."""
    tables = [engine.decoded(document).astype(np.float64) @ query.T for document in range(len(engine))]
    return np.array([table.max(axis=0).sum() if len(table) else 0.0 for table in tables]), tables


def check(
    engine: MultiVectorEngine, query: np.ndarray, k: int, mask: np.ndarray | None, options: SearchOptions
) -> None:
    """Every score is right, and no document that was left out is better than one that was found."""
    found = engine.search(query, k, mask=mask, options=options)
    scores, tables = brute_force(engine, query)
    allowed = np.array([len(table) > 0 for table in tables])
    if mask is not None:
        allowed &= mask
    error = 0.02 * len(query)  # int8 query against float query
    assert len(found.ids) == min(k, allowed.sum()) == len(set(found.ids.tolist()))
    assert allowed[found.ids].all()
    np.testing.assert_allclose(found.scores, scores[found.ids], atol=error)
    assert (np.diff(found.scores) <= 0).all()
    left = np.setdiff1d(np.flatnonzero(allowed), found.ids)
    if len(left) and len(found.ids):
        assert scores[left].max() <= scores[found.ids].min() + 2 * error
    assert found.evidence.shape == (len(found.ids), len(query))
    for document, winners in zip(found.ids, found.evidence, strict=True):
        table = tables[document]
        assert (table[winners, np.arange(len(query))] >= table.max(axis=0) - 0.05).all()


masks = st.sampled_from(["none", "half", "one", "nothing", "all"])


def mask_of(kind: str, documents: int, seed: int) -> np.ndarray | None:
    rng = np.random.default_rng(seed)
    allowed = {"half": rng.random(documents) < 0.5, "all": np.ones(documents, bool)}.get(
        kind, np.zeros(documents, bool)
    )
    if kind == "one" and documents:
        allowed[rng.integers(documents)] = True
    return None if kind == "none" else allowed


@each_path
@given(
    seed=st.integers(0, 10**6),
    documents=st.sampled_from([1, 2, 7, 60]),
    dims=st.sampled_from([1, 3, 16, 30, 64, 130]),
    lanes=st.sampled_from([1, 5, 16, 33]),
    k=st.sampled_from([1, 3, 100]),
    kind=masks,
    exact=st.booleans(),
    with_ids=st.booleans(),
    refine=st.booleans(),
    bits=st.sampled_from([2, 4]),
)
@thorough
def test_a_search_that_looks_everywhere_answers_what_brute_force_answers(
    kernels: Kernels,
    seed: int,
    documents: int,
    dims: int,
    lanes: int,
    k: int,
    kind: str,
    exact: bool,
    with_ids: bool,
    refine: bool,
    bits: int,
) -> None:
    vectors = collection(seed, documents, dims)
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 20, len(vectors.values)) if with_ids else None
    build = BuildOptions(exact_below_tokens=10**9 if exact else 0, refine=refine, bits=bits, centroids=9)
    engine = MultiVectorEngine.build(vectors, ids, build, kernels)
    assert engine.exact == (exact or not len(vectors.values))
    check(engine, unit_rows(rng, lanes, dims), k, mask_of(kind, documents, seed), EVERYTHING)


@each_path
@given(seed=st.integers(0, 10**6), kind=masks, mode=st.sampled_from(["maxsim", "xtr"]), probes=st.integers(1, 4))
@thorough
def test_a_narrow_search_returns_k_allowed_documents(
    kernels: Kernels, seed: int, kind: str, mode: str, probes: int
) -> None:
    vectors = collection(seed, 80, 24, 6)
    engine = MultiVectorEngine.build(vectors, None, BuildOptions(exact_below_tokens=0, centroids=30), kernels)
    mask = mask_of(kind, 80, seed)
    with_tokens = np.diff(vectors.offsets) > 0
    allowed = with_tokens if mask is None else with_tokens & mask
    options = SearchOptions(probes, 20, 20, 10, 0)
    found = engine.search(unit_rows(np.random.default_rng(seed), 4, 24), 10, mode, mask, options=options)
    assert len(set(found.ids.tolist())) == len(found.ids) >= min(10, allowed.sum())
    assert mask is None or mask[found.ids].all()
    assert found.evidence.shape == (len(found.ids), 4)


def test_every_path_gives_the_same_ranking() -> None:
    vectors = collection(3, 400, 48)
    query = unit_rows(np.random.default_rng(4), 11, 48)
    build = BuildOptions(exact_below_tokens=0, centroids=64, refine=True)
    runs = [MultiVectorEngine.build(vectors, None, build, kernels).search(query, 20) for kernels in all_kernels()]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.ids, runs[0].ids)
        np.testing.assert_allclose(run.scores, runs[0].scores, rtol=1e-5)


def test_a_build_is_deterministic_by_its_seed() -> None:
    vectors = collection(5, 300, 32)
    one, two, other = (
        MultiVectorEngine.build(vectors, None, BuildOptions(exact_below_tokens=0, seed=seed)) for seed in (1, 1, 2)
    )
    parts = [engine._part.to_arrays()[1] for engine in (one, two, other)]
    for name in parts[0]:
        np.testing.assert_array_equal(parts[0][name], parts[1][name])
    assert any(not np.array_equal(parts[0][name], parts[2][name]) for name in parts[0])


def test_a_document_finds_itself_first() -> None:
    vectors = collection(6, 3000, 64, 20)
    engine = MultiVectorEngine.build(vectors, None, BuildOptions(exact_below_tokens=0))
    wanted = [document for document in range(0, 3000, 37) if len(vectors[document]) > 3]
    first = [engine.search(vectors[document], 1).ids[0] for document in wanted]
    assert np.mean(np.array(first) == wanted) > 0.98


def test_one_engine_is_searched_by_many_threads() -> None:
    vectors = collection(7, 2000, 32)
    engine = MultiVectorEngine.build(vectors, None, BuildOptions(exact_below_tokens=0))
    queries = [unit_rows(np.random.default_rng(i), 8, 32) for i in range(40)]
    expected = [engine.search(query).ids.tolist() for query in queries]
    found: dict[int, list[list[int]]] = {}

    def work(number: int) -> None:
        found[number] = [engine.search(query).ids.tolist() for query in queries]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == expected for i in range(4))


def test_a_query_without_tokens_scores_every_document_zero() -> None:
    engine = MultiVectorEngine.build(collection(1, 50, 16), None, BuildOptions(exact_below_tokens=0))
    found = engine.search(np.zeros((0, 16), np.float32), 5)
    assert found.scores.tolist() == [0.0] * len(found.ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.zeros((2, 5), np.float32)}, r"`query` must be \[query tokens, 16\]"),
        ({"query": np.full((2, 16), np.nan)}, "NaN"),
        ({"k": 0}, "`k` must be at least 1, got 0"),
        ({"mode": "plaid"}, "`mode` must be"),
        ({"mask": np.ones(3, bool)}, r"`mask` must be bool \[50\]"),
        ({"mask": np.ones(50, np.int64)}, r"`mask` must be bool \[50\]"),
        ({"nprobe": 0}, "`probes` must be at least 1"),
        ({"refine": -1}, "`refine_documents` must be 0 or more"),
    ],
)
def test_a_malformed_search_is_refused(change: dict, message: str) -> None:
    engine = MultiVectorEngine.build(collection(1, 50, 16), None, BuildOptions(exact_below_tokens=0))
    with pytest.raises(ValueError, match=message):
        engine.search(**{"query": np.ones((2, 16), np.float32), **change})


@pytest.mark.parametrize(
    ("values", "offsets", "ids", "message"),
    [
        (np.zeros((2, 0)), [0, 2], None, "at least one dim"),
        (np.zeros((2, 3)), [0, 1], None, "must rise from 0"),
        (np.zeros((2, 3)), [0, 2, 1, 2], None, "must rise from 0"),
        (np.full((2, 3), np.inf), [0, 2], None, "NaN or infinity"),
        (np.zeros((2, 3)), [0, 2], np.zeros(3, int), "`token_ids` must be"),
    ],
)
def test_malformed_vectors_are_refused(values: np.ndarray, offsets: list, ids: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiVectorEngine.build(Vectors(values, np.array(offsets)), ids)


def test_an_engine_of_nothing_finds_nothing() -> None:
    empty = MultiVectorEngine.build(Vectors(np.zeros((0, 8), np.float32), np.zeros(1, np.int64)))
    found = empty.search(np.ones((3, 8), np.float32))
    assert len(empty) == len(found.ids) == 0 and found.evidence.shape == (0, 3)
