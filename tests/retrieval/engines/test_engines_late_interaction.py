"""Coded documents and later ones answer together, on the CPU and through the engine for a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from ctxkit.errors import DeviceUnavailable
from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines.late_interaction import LateInteractionEngine
from ctxkit.retrieval.multivector import BuildOptions, SearchOptions
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit_kernels import best_kernels

DIMS = 24
EVERYTHING = SearchOptions(10**6, 10**9, 10**6, 10**6, 10**6)


def vectors(seed: int, documents: int) -> Vectors:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 8, documents))]).astype(np.int64)
    values = rng.standard_normal((offsets[-1], DIMS)).astype(np.float32)
    return Vectors(values / np.linalg.norm(values, axis=1, keepdims=True), offsets)


def both() -> tuple[CodedIndex, Vectors, Vectors]:
    first, later = vectors(1, 80), vectors(2, 30)
    return CodedIndex.build(best_kernels(), first, None, BuildOptions(centroids=20, refine=True)), first, later


def brute_force(parts: list[Vectors], query: np.ndarray) -> np.ndarray:
    return np.array([(part[i] @ query.T).max(axis=0).sum() for part in parts for i in range(len(part))])


@pytest.mark.parametrize("device", [None, "cpu"], ids=["cpu engine", "gpu engine on the cpu"])
@pytest.mark.parametrize("filtered", [False, True])
def test_coded_documents_and_later_ones_are_ranked_together(device, filtered):
    if device is not None:
        pytest.importorskip("torch")
    coded, first, later = both()
    engine = LateInteractionEngine(DIMS, coded, EVERYTHING, device=device)
    engine.add(later)
    rng = np.random.default_rng(3)
    for _ in range(10):
        query = vectors(int(rng.integers(1000)), 1).values[:5]
        allowed = rng.random(110) < 0.3 if filtered else None
        truth = brute_force([first, later], query)
        if allowed is not None:
            truth[~allowed] = -np.inf
        run = engine.search(query, 15, allowed)
        assert len(run) >= 15 and (allowed is None or allowed[run.positions].all())
        np.testing.assert_allclose(run.scores, truth[run.positions], atol=0.05)
        assert truth[np.setdiff1d(np.arange(110), run.positions)].max() <= run.scores[14] + 0.1


def test_vectors_come_back_as_they_are_kept():
    coded, first, later = both()
    engine = LateInteractionEngine(DIMS, coded)
    engine.add(later)
    found = engine.vectors(np.array([100, 3]))
    np.testing.assert_array_equal(found[0], later[20])
    np.testing.assert_allclose(found[1], first[3], atol=0.01)


def test_a_gpu_that_is_not_there_is_named():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(DeviceUnavailable):
        LateInteractionEngine(DIMS, both()[0], device="cuda")
