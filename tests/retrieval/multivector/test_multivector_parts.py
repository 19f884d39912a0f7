"""Documents in several parts of one codebook answer as in one; joining parts drops documents and changes no code."""

from __future__ import annotations

import numpy as np
import pytest

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, SearchOptions
from ctxkit.retrieval.multivector.codebook import Codebook
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.part import CodedPart
from ctxkit.retrieval.multivector.stages import rank
from ctxkit_kernels import best_kernels

DIMS = 20
CUTS = [0, 70, 71, 200, 300]  # documents of the parts
KERNELS = best_kernels()


def documents(seed: int = 0, count: int = 300) -> tuple[Vectors, np.ndarray]:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 7, count))]).astype(np.int64)
    return Vectors(rng.standard_normal((offsets[-1], DIMS)).astype(np.float32), offsets), rng.integers(
        0, 30, offsets[-1]
    )


def some(vectors: Vectors, first: int, last: int) -> Vectors:
    start, end = vectors.offsets[[first, last]]
    return Vectors(vectors.values[start:end], vectors.offsets[first : last + 1] - start)


@pytest.fixture(params=[False, True], ids=["codes", "refined"])
def whole_and_parts(request: pytest.FixtureRequest) -> tuple[CodedIndex, CodedIndex]:
    vectors, ids = documents()
    codebook, codes = Codebook.train(vectors.values, ids, BuildOptions(centroids=60))
    parts = []
    for first, last in zip(CUTS, CUTS[1:], strict=False):
        own = slice(*vectors.offsets[[first, last]])
        parts.append(
            CodedPart.encode(KERNELS, codebook, some(vectors, first, last), codes[own], keep_rows=request.param)
        )
    whole = CodedPart.encode(KERNELS, codebook, vectors, codes, keep_rows=request.param)
    return CodedIndex(codebook, (whole,)), CodedIndex(codebook, tuple(parts))


@pytest.mark.parametrize("mode", ["maxsim", "xtr"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [SearchOptions(), SearchOptions(3, 50, 20, 8, 4), SearchOptions(60, 10, 300, 300)])
def test_parts_answer_as_one_part(whole_and_parts, mode, masked, options) -> None:
    whole, parts = whole_and_parts
    rng = np.random.default_rng(5)
    filled = whole.with_tokens
    np.testing.assert_array_equal(filled, parts.with_tokens)
    for _ in range(20):
        query = rng.standard_normal((7, DIMS)).astype(np.float32)
        mask = filled & (rng.random(300) < 0.4) if masked else filled
        one, many = (rank(index, KERNELS, query, 6, mode, mask, options) for index in (whole, parts))
        np.testing.assert_array_equal(one.documents, many.documents)
        np.testing.assert_array_equal(one.scores, many.scores)
        np.testing.assert_array_equal(one.evidence, many.evidence)


def test_joined_parts_are_the_kept_documents_with_their_codes(whole_and_parts) -> None:
    whole, parts = whole_and_parts
    rng = np.random.default_rng(6)
    kept = np.flatnonzero(rng.random(300) < 0.6)
    by_part = [kept[(kept >= a) & (kept < b)] - a for a, b in zip(CUTS, CUTS[1:], strict=False)]
    joined = CodedPart.joined(parts.codebook, parts.parts, by_part)
    assert len(joined) == len(kept)
    index = CodedIndex(parts.codebook, (joined,))
    for place, document in enumerate(kept):
        np.testing.assert_array_equal(index.decoded(place), whole.decoded(document))
    mask = np.zeros(300, bool)
    mask[kept] = True
    query = rng.standard_normal((7, DIMS)).astype(np.float32)
    everything = SearchOptions(10**6, 10**9, 10**6, 10**6, 0)
    one = rank(whole, KERNELS, query, 10, "maxsim", mask & whole.with_tokens, everything)
    two = rank(index, KERNELS, query, 10, "maxsim", joined.with_tokens, everything)
    np.testing.assert_array_equal(one.documents, kept[two.documents])
    np.testing.assert_array_equal(one.scores, two.scores)


def test_parts_come_back_from_their_arrays(whole_and_parts) -> None:
    for index in whole_and_parts:
        facts, arrays = index.to_arrays()
        again = CodedIndex.from_arrays(facts, arrays)
        for name, array in again.to_arrays()[1].items():
            np.testing.assert_array_equal(array, arrays[name])


def test_values_are_the_int8_rows_where_they_are_kept_and_else_the_codes() -> None:
    vectors, ids = documents(3)
    chosen = np.array([5, 250, 17])
    truth = np.concatenate([vectors[i] for i in chosen])
    errors = []
    for keep in (True, False):
        codebook, codes = Codebook.train(vectors.values, ids, BuildOptions(centroids=60))
        part = CodedPart.encode(KERNELS, codebook, vectors, codes, keep_rows=keep)
        errors.append(float(np.abs(part.values(codebook, chosen) - truth).max()))
    assert errors[0] < 0.02 < errors[1] < 1.0


def test_a_codebook_says_how_far_later_tokens_lie_and_whose_its_centroids_are() -> None:
    vectors, ids = documents(4)
    codebook, codes = Codebook.train(vectors.values, ids, BuildOptions(centroids=60))
    assert codebook.drift(vectors.values, codes) == pytest.approx(1.0, abs=0.05)
    far = vectors.values + 3.0
    assert codebook.drift(far, codebook.assign(far, ids)) > 1.5
    own = codebook.token_ids(codes)
    assert own is not None and set(own[own >= 0]) <= set(ids.tolist())
    without, codes = Codebook.train(vectors.values, None, BuildOptions(centroids=60))
    assert without.token_ids(codes) is None
