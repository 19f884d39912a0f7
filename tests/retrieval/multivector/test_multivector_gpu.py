"""A GpuEngine answers what brute force over the decoded vectors answers, and waits for the device once a batch.

The torch path runs everywhere. Triton's runs in its interpreter where there is no GPU (see tests/conftest.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from ctxkit.errors import DeviceUnavailable, MissingExtra
from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine, SearchOptions, gpu
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.exact import ExactScan
from ctxkit.retrieval.multivector.gpu import GpuEngine
from ctxkit.retrieval.multivector.options import GpuOptions
from ctxkit_kernels import best_kernels

torch = pytest.importorskip("torch")
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
each_kind = pytest.mark.parametrize("kind", ["exact", "coded", "two bits", "refined"])
EVERYTHING = GpuOptions(rerank_documents=10**6, refine_documents=10**6)


def unit_rows(rng: np.random.Generator, rows: int, dims: int) -> np.ndarray:
    values = rng.standard_normal((rows, dims)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def collection(seed: int, documents: int, dims: int, most_tokens: int = 9) -> Vectors:
    """Documents of 0 to `most_tokens` tokens, each near one of a few directions."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most_tokens + 1, documents)
    values = unit_rows(rng, 12, dims)[rng.integers(0, 12, counts.sum())] + 0.4 * unit_rows(rng, counts.sum(), dims)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Vectors(values.astype(np.float32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def part_of(kind: str, vectors: Vectors) -> CodedIndex | ExactScan:
    if kind == "exact":
        return ExactScan.build(vectors)
    options = BuildOptions(bits=2 if kind == "two bits" else 4, refine=kind == "refined", centroids=9)
    return CodedIndex.build(best_kernels(), vectors, None, options)


def queries_of(seed: int, dims: int, counts: Sequence[int] = (1, 40, 7, 16)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(unit_rows(rng, count, dims) * rng.uniform(0.1, 90)).astype(np.float32) for count in counts]


def brute_force(part: CodedIndex | ExactScan, query: np.ndarray) -> list[np.ndarray]:
    """Float64 [tokens, lanes] for each document: similarities of the vectors that the engine decodes to."""
    if isinstance(part, CodedIndex) and part.parts[0].rows is not None:
        part = ExactScan(part.dims, part.parts[0].rows)
    return [part.decoded(document).astype(np.float64) @ query.T.astype(np.float64) for document in range(len(part))]


def check(
    part: CodedIndex | ExactScan,
    engine: GpuEngine,
    queries: list[np.ndarray],
    k: int,
    mask: np.ndarray | None,
    error: float,
) -> None:
    """Every score is right within `error` of the query's length, and nothing better was left out."""
    for query, found in zip(queries, engine.search_batch(queries, k, mask), strict=True):
        tables = brute_force(part, query)
        scores = np.array([table.max(axis=0).sum() if len(table) else 0.0 for table in tables])
        allowed = np.array([len(table) > 0 for table in tables])
        allowed &= True if mask is None else mask
        slack = error * float(np.linalg.norm(query, axis=1).sum()) + 1e-6
        assert len(found.ids) == min(k, allowed.sum()) == len(set(found.ids.tolist()))
        assert allowed[found.ids].all()
        np.testing.assert_allclose(found.scores, scores[found.ids], atol=slack)
        assert (np.diff(found.scores) <= 0).all()
        left = np.setdiff1d(np.flatnonzero(allowed), found.ids)
        assert not len(left) or not len(found.ids) or scores[left].max() <= scores[found.ids].min() + 2 * slack
        assert found.evidence.shape == (len(found.ids), len(query))
        if isinstance(part, CodedIndex) and part.refined:
            continue  # the evidence is by codes, the scores by rows
        for document, winners in zip(found.ids, found.evidence, strict=True):
            table = tables[document]
            assert (table[winners, np.arange(len(query))] >= table.max(axis=0) - 2 * slack).all()


@each_kind
@pytest.mark.parametrize("dims", [1, 3, 64, 96, 130])
@pytest.mark.parametrize("share", [None, 0.5, 0.02, 0.0])
def test_a_search_that_looks_everywhere_answers_what_brute_force_answers(kind: str, dims: int, share: float) -> None:
    part = part_of(kind, collection(dims, 60, dims))
    mask = None if share is None else np.random.default_rng(dims).random(60) < share
    engine = GpuEngine(part, "cpu", path="torch", options=EVERYTHING)
    for k in (1, 7, 100):
        check(part, engine, queries_of(dims, dims), k, mask, 1e-5)


@each_kind
@pytest.mark.parametrize("dims", [16, 130])
@with_triton
def test_triton_s_search_answers_what_brute_force_answers(kind: str, dims: int) -> None:
    part = part_of(kind, collection(dims, 25, dims))
    engine = GpuEngine(part, gpu_or_cpu(), path="triton", options=EVERYTHING)
    check(part, engine, queries_of(dims, dims, (1, 40)), 5, None, 1e-3)
    check(part, engine, queries_of(dims, dims, (3,)), 30, np.arange(25) % 2 == 0, 1e-3)


@with_gpu
@each_kind
@pytest.mark.parametrize("path", ["triton", "torch"])
def test_a_gpu_answers_what_brute_force_answers(kind: str, path: Any) -> None:
    part = part_of(kind, collection(5, 3_000, 128, 90))
    engine = GpuEngine(part, "cuda", path=path, options=EVERYTHING)
    check(part, engine, queries_of(5, 128, (1, 32, 18, 70)), 50, None, 1e-3)


def gpu_or_cpu() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def test_the_ranking_is_that_of_the_cpu_engine_s_rerank() -> None:
    """Within 2e-3 of the query's length, for queries that int8 holds exactly: the CPU rounds what it asks residuals."""
    index = part_of("coded", collection(11, 300, 64, 30))
    cpu, options = MultiVectorEngine(index), SearchOptions(10**6, 10**9, 10**6, 10**6, 0)
    rng = np.random.default_rng(12)
    queries = [rng.integers(-127, 128, (lanes, 64)).astype(np.float32) for lanes in (1, 8, 32)]
    for query in queries:
        query[0, 0] = 127  # the unit is then 1
    for query, found in zip(
        queries, GpuEngine(index, "cpu", options=EVERYTHING).search_batch(queries, 300), strict=True
    ):
        expected = cpu.search(query, 300, options=options)
        by_document = dict(zip(expected.ids.tolist(), expected.scores.tolist(), strict=True))
        slack = 2e-3 * np.linalg.norm(query, axis=1).sum()
        np.testing.assert_allclose(found.scores, [by_document[i] for i in found.ids.tolist()], atol=slack)
        np.testing.assert_allclose(found.scores, expected.scores, atol=slack)


def test_a_narrow_search_finds_most_of_what_a_wide_one_finds() -> None:
    vectors = collection(21, 2_000, 32, 20)
    index = CodedIndex.build(best_kernels(), vectors, None, BuildOptions(centroids=200))
    queries = [vectors[document] for document in range(0, 2_000, 100) if len(vectors[document]) > 3]
    narrow = GpuEngine(index, "cpu", options=GpuOptions(rerank_documents=100)).search_batch(queries)
    wide = GpuEngine(index, "cpu", options=EVERYTHING).search_batch(queries)
    shared = [len(set(one.ids) & set(two.ids)) / 10 for one, two in zip(narrow, wide, strict=True)]
    assert np.mean(shared) > 0.9


@each_kind
def test_a_batch_is_its_queries_whatever_the_memory(kind: str) -> None:
    part = part_of(kind, collection(3, 80, 24))
    queries = queries_of(3, 24, (4, 33, 1, 0, 12))
    engine = GpuEngine(part, "cpu", options=GpuOptions(20, 10))
    batch = engine.search_batch(queries, 6)
    small = GpuEngine(part, "cpu", options=GpuOptions(20, 10, work_bytes=1)).search_batch(queries, 6)
    for query, one, two in zip(queries, batch, small, strict=True):
        alone = engine.search(query, 6)
        for other in (two, alone):
            np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(one.ids, other.ids)
            np.testing.assert_array_equal(one.evidence, other.evidence)
    assert batch[3].scores.tolist() == [0.0] * 6 and batch[3].evidence.shape == (6, 0)


def test_of_equal_documents_the_lower_number_comes_first() -> None:
    one = unit_rows(np.random.default_rng(0), 3, 16)
    vectors = Vectors(np.tile(one, (40, 1)), np.arange(0, 121, 3))
    for kind in ("exact", "coded", "refined"):
        engine = GpuEngine(part_of(kind, vectors), "cpu", options=GpuOptions(rerank_documents=10, refine_documents=8))
        found = engine.search(one, 5)
        assert found.ids.tolist() == [0, 1, 2, 3, 4]
        assert found.evidence.tolist() == [[0, 1, 2]] * 5


def test_the_best_are_sorted_by_score_and_then_by_place() -> None:
    from ctxkit.retrieval.multivector.gpu_stages import best

    scores = torch.tensor([[0.0, -0.0, -1.5, 3.0, 3.0, -torch.inf, 1e-30, -1e-30]])
    assert best(scores, 8).tolist() == [[3, 4, 6, 0, 1, 7, 2, 5]]


@each_kind
def test_nothing_waits_for_the_device_before_the_results_are_copied(kind: str) -> None:
    """On the CPU: no operation whose result the host must read. On a GPU: torch itself would refuse."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    engine = GpuEngine(part_of(kind, collection(1, 60, 16)), gpu_or_cpu(), options=GpuOptions(20, 10))
    queries = queries_of(1, 16)
    scales = [1.0] * len(queries)
    allowed = np.arange(0, 60, 2, dtype=np.int32)
    engine.search_batch(queries)  # compiles and allocates
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("error")
    try:
        with Watch():
            engine._enqueued(queries, scales, 5, None)
            engine._enqueued(queries, scales, 5, allowed)
    finally:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
    assert "topk" in seen
    assert not {"item", "_local_scalar_dense", "nonzero", "masked_select", "unique"} & set(seen)


def test_an_engine_says_what_it_is() -> None:
    engine = GpuEngine(part_of("coded", collection(1, 50, 16)), "cpu")
    assert repr(engine) == "GpuEngine(50 documents, 16 dims, coded, torch on cpu)"
    assert not engine.exact and len(engine) == 50
    assert engine.nbytes > len(collection(1, 50, 16).values) * (4 + 8 + 2)


def test_nothing_is_found_for_no_queries_or_in_nothing() -> None:
    engine = GpuEngine(part_of("coded", collection(1, 50, 16)), "cpu")
    assert engine.search_batch([]) == []
    empty = GpuEngine(ExactScan.build(Vectors(np.zeros((0, 16), np.float32), np.zeros(4, np.int64))), "cpu")
    found = empty.search(np.ones((3, 16), np.float32))
    assert len(found.ids) == 0 and found.evidence.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": [np.zeros((2, 5), np.float32)]}, r"a query must be \[query tokens, 16\]"),
        ({"queries": [np.full((2, 16), np.nan)]}, "NaN"),
        ({"k": 0}, "`k` must be at least 1, got 0"),
        ({"mask": np.ones(3, bool)}, r"`mask` must be bool \[50\]"),
        ({"mask": np.ones(50, np.int64)}, r"`mask` must be bool \[50\]"),
    ],
)
def test_a_malformed_search_is_refused(change: dict, message: str) -> None:
    engine = GpuEngine(part_of("coded", collection(1, 50, 16)), "cpu")
    with pytest.raises(ValueError, match=message):
        engine.search_batch(**{"queries": [np.ones((2, 16), np.float32)], **change})


@pytest.mark.parametrize("name", ["rerank_documents", "refine_documents", "work_bytes"])
def test_malformed_options_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        GpuOptions(**{name: -1})


def test_what_is_asked_for_and_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_of("exact", collection(1, 5, 16))
    with pytest.raises(DeviceUnavailable, match="there is no 'cuda:99' here.* Use MultiVectorEngine"):
        GpuEngine(part, "cuda:99")
    with pytest.raises(DeviceUnavailable, match="got 'meta'"):
        GpuEngine(part, "meta")
    if find_spec("triton") is None:
        with pytest.raises(MissingExtra, match="`triton` is needed"):
            GpuEngine(part, "cpu", path="triton")
    assert gpu.gpu_available() is torch.cuda.is_available()
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert not gpu.gpu_available()
    with pytest.raises(MissingExtra, match="`torch` is needed"):
        GpuEngine(part, "cpu")


def test_torch_is_not_loaded_before_an_engine_is_made() -> None:
    code = "import sys, ctxkit.retrieval.multivector.gpu; print(*{'torch', 'triton'} & set(sys.modules))"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
