"""What the codec promises: errors within their bounds, levels that are Lloyd and Max's, lengths kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine, codec
from ctxkit.retrieval.multivector.clustering import SHARED, assigned, cluster, default_centroids, nearest
from ctxkit_kernels import best_kernels

quick = settings(max_examples=40, deadline=None)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 1e6]))
@quick
def test_int8_is_off_by_half_a_unit_at_most(seed: int, scale: float) -> None:
    values = (np.random.default_rng(seed).standard_normal((5, 7)) * scale).astype(np.float32)
    rounded, unit = codec.to_int8(values)
    assert np.abs(rounded).max(initial=0) <= 127
    assert (np.abs(values - rounded * unit) <= unit * 0.501).all()
    rows, scales = codec.byte_rows(values)
    assert (np.abs(values - rows[:, :7] * scales[:, None]) <= scales[:, None] * 0.501).all()


def test_lloyd_max_levels_of_a_normal_distribution_are_the_published_ones() -> None:
    values = np.random.default_rng(0).standard_normal(400_000)
    np.testing.assert_allclose(codec.lloyd_max(values, 4), [-1.510, -0.4528, 0.4528, 1.510], atol=0.02)  # Max 1960
    levels = codec.lloyd_max(values, 16)
    error = ((values - levels[np.abs(values[:, None] - levels).argmin(axis=1)]) ** 2).mean()
    assert error == pytest.approx(0.00950, rel=0.1)  # Max 1960, 16 levels


@given(seed=st.integers(0, 10**6), dims=st.sampled_from([2, 17, 64, 128]), bits=st.sampled_from([2, 4]))
@quick
def test_decoded_vectors_keep_their_length_and_lose_no_more_than_their_bits(seed: int, dims: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((600, dims)).astype(np.float32) * rng.uniform(0.5, 2)
    offsets = np.arange(0, 601, 6)
    build = BuildOptions(exact_below_tokens=0, centroids=20, bits=bits)
    engine = MultiVectorEngine.build(Vectors(values, offsets), None, build)
    decoded = np.concatenate([engine.decoded(document) for document in range(100)])
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), np.linalg.norm(values, axis=1), rtol=2e-3)
    codebook, (part,) = engine._part.codebook, engine._part.parts
    near = codebook.centroids[part.tokens.codes, :dims] * codebook.codec.unit
    share = ((values - decoded) ** 2).sum() / ((values - near) ** 2).sum()
    assert share < {2: 0.25, 4: 0.025}[bits]  # of the residual's energy; a normal one loses 0.118 and 0.0095


def test_a_constant_collection_is_coded_exactly() -> None:
    values = np.tile(np.array([[0.6, 0.0, 0.8]], np.float32), (40, 1))
    engine = MultiVectorEngine.build(Vectors(values, np.arange(0, 41, 4)), None, BuildOptions(exact_below_tokens=0))
    np.testing.assert_allclose(engine.decoded(3), values[:4], atol=0.01)
    assert engine.search(values[:1], 3).scores == pytest.approx(1.0, abs=0.02)


def test_zero_vectors_stay_zero() -> None:
    values = np.zeros((12, 5), np.float32)
    engine = MultiVectorEngine.build(Vectors(values, np.arange(0, 13, 3)), None, BuildOptions(exact_below_tokens=0))
    assert np.abs(engine.decoded(0)).max() < 1e-6
    assert engine.search(np.ones((2, 5), np.float32), 2).scores == pytest.approx(0.0)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 80), tokens=st.sampled_from([1, 5, 300]), ids=st.booleans())
@quick
def test_clusters_cover_all_tokens_and_are_about_as_many_as_asked(
    seed: int, count: int, tokens: int, ids: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((tokens, 8)).astype(np.float32)
    groups = rng.integers(0, 6, tokens) if ids else None
    made = cluster(values, groups, count, seed)
    assert made.codes.shape == (tokens,)
    assert 1 <= len(made.rows) <= max(tokens, 1)
    assert len(made.rows) <= max(count, 6 + round(count**0.5) + 1)
    assert made.codes.min() >= 0 and made.codes.max() < len(made.rows)
    assert np.isfinite(made.rows).all()


def test_token_aware_clusters_hold_one_token_each_where_it_is_frequent() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat([3, 9, 27], 400)
    made = cluster(rng.standard_normal((1200, 16)).astype(np.float32), ids, 60)
    owners = [set(ids[made.codes == code]) for code in range(len(made.rows))]
    assert all(len(owner) <= 1 for owner in owners)
    assert all(owner <= {made.groups[code]} for code, owner in enumerate(owners))


def test_later_tokens_go_to_the_nearest_centroid_of_their_id_and_unknown_ids_to_a_shared_one() -> None:
    rng = np.random.default_rng(0)
    ids = np.concatenate([np.repeat([3, 9, 27], 400), np.arange(100, 140)])
    made = cluster(rng.standard_normal((1240, 16)).astype(np.float32), ids, 60)
    values, later = rng.standard_normal((50, 16)).astype(np.float32), rng.choice([3, 27, 500], 50)
    codes = assigned(values, later, made.rows, made.groups)
    for value, id_, code in zip(values, later, codes, strict=True):
        own = np.flatnonzero(made.groups == (SHARED if id_ == 500 else id_))
        assert code == own[((made.rows[own] - value) ** 2).sum(axis=1).argmin()]
    np.testing.assert_array_equal(assigned(values, None, made.rows, made.groups), nearest(values, made.rows))


def test_nearest_is_the_least_distance() -> None:
    rng = np.random.default_rng(1)
    values, rows = rng.standard_normal((50, 6)).astype(np.float32), rng.standard_normal((9, 6)).astype(np.float32)
    distances = ((values[:, None] - rows) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest(values, rows), distances.argmin(axis=1))
    assert default_centroids(0) == 1


def test_the_codec_of_a_million_tokens_takes_no_more_than_76_bytes_each() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((60_000, 128)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    options = BuildOptions(exact_below_tokens=0, centroids=960)  # 16 * sqrt(tokens) of a million is 1 per 62 tokens
    engine = MultiVectorEngine.build(Vectors(values, np.arange(0, 60_001, 60)), None, options, best_kernels())
    assert engine.nbytes / 60_000 <= 76
