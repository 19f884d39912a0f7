"""Clusters: every hit in exactly one, the same for any order, and sensible for input that has nothing to part."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder, Hit
from ctxkit.retrieval.clusters import Cluster, cluster, hit_vectors
from ctxkit.retrieval.clusters.kmeans import kmeans
from ctxkit.retrieval.clusters.space import Space
from ctxkit.retrieval.clusters.vectors import pooled, unit_rows

RULES = ["silhouette", "paper", "budget", 1, 3, 50]


def make_hit(number: int, relevance: float, text: str = "") -> Hit:
    chunk = Chunk(f"c{number:03d}", f"s{number % 3}.md", text or f"text {number}", start_line=number + 1)
    return Hit(chunk, number + 1, relevance, relevance)


@st.composite
def collections(draw: st.DrawFn) -> tuple[list[Hit], np.ndarray]:
    """Hits whose vectors are drawn around few directions, with duplicates and zeros among them."""
    n = draw(st.integers(1, 14))
    seed = draw(st.integers(0, 10**6))
    noise = draw(st.sampled_from([0.0, 0.05, 1.0]))
    random_numbers = np.random.default_rng(seed)
    centres = random_numbers.standard_normal((draw(st.integers(1, 4)), 5))
    centres[0] *= draw(st.sampled_from([0.0, 1e-200, 1.0]))
    vectors = centres[random_numbers.integers(len(centres), size=n)] + noise * random_numbers.standard_normal((n, 5))
    return [make_hit(i, float(random_numbers.random()) / n) for i in range(n)], vectors


def ids(clusters: tuple[Cluster, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.representative.chunk.id, one.ids) for one in clusters]


@given(collections(), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_every_hit_is_in_one_cluster_whatever_the_order(
    given_: tuple[list[Hit], np.ndarray], k: str | int, shuffler: random.Random
) -> None:
    hits, vectors = given_
    found = cluster(hits, vectors, k)
    assert sorted(name for one in found for name in one.ids) == sorted(hit.chunk.id for hit in hits)
    assert sum(one.weight for one in found) == pytest.approx(sum(hit.relevance for hit in hits))
    assert [one.weight for one in found] == sorted((one.weight for one in found), reverse=True)
    for one in found:
        assert one.representative in one.hits and 0 <= one.covered <= one.weight + 1e-9
        assert [hit.relevance for hit in one.hits] == sorted((hit.relevance for hit in one.hits), reverse=True)
    order = list(range(len(hits)))
    shuffler.shuffle(order)
    assert ids(cluster([hits[i] for i in order], vectors[order], k)) == ids(found)
    assert cluster(hits, vectors, k) == found


@given(collections())
def test_budget_takes_the_smallest_k_that_covers_nine_tenths(given_: tuple[list[Hit], np.ndarray]) -> None:
    hits, vectors = given_
    total = sum(hit.relevance for hit in hits)
    found = cluster(hits, vectors, "budget")
    assert sum(one.covered for one in found) >= 0.9 * total - 1e-6
    for k in range(1, len(found)):
        assert sum(one.covered for one in cluster(hits, vectors, k)) < 0.9 * total


@given(collections())
def test_silhouette_agrees_with_its_definition(given_: tuple[list[Hit], np.ndarray]) -> None:
    hits, vectors = given_
    points = unit_rows(vectors, len(hits))
    labels = kmeans(points, 3)
    space = Space(points, np.ones(len(hits)), 0.5)
    distances = np.clip(1 - points @ points.T, 0, 2)
    scores = []
    for i, own in enumerate(labels):
        mean = {c: distances[i, (labels == c) & (np.arange(len(labels)) != i)] for c in set(labels.tolist())}
        if len(mean) < 2 or not len(mean[own]):
            scores.append(0.0)
            continue
        inner, outer = mean[own].mean(), min(mean[c].mean() for c in mean if c != own)
        scores.append((outer - inner) / max(inner, outer) if max(inner, outer) > 1e-12 else 0.0)
    assert space.silhouette(labels) == pytest.approx(float(np.mean(scores)), abs=1e-6)


@given(collections(), st.integers(1, 6))
def test_kmeans_gives_k_clusters_where_there_are_k_different_points(
    given_: tuple[list[Hit], np.ndarray], k: int
) -> None:
    points = unit_rows(given_[1], len(given_[0]))
    different = len(np.unique(np.round(points, 6), axis=0))
    labels = kmeans(points, k, seed=3)
    assert set(labels.tolist()) == set(range(min(k, different)))
    first = [labels.tolist().index(label) for label in range(min(k, different))]
    assert first == sorted(first)


def test_silhouette_finds_the_groups_that_are_there() -> None:
    around = np.repeat(np.eye(3), 4, axis=0) + 0.02 * np.random.default_rng(0).standard_normal((12, 3))
    found = cluster([make_hit(i, 1 / (2 + i)) for i in range(12)], around)
    assert sorted(one.ids for one in found) == [tuple(f"c{4 * g + i:03d}" for i in range(4)) for g in range(3)]


@pytest.mark.parametrize("k", RULES)
def test_duplicates_are_one_cluster_and_its_best_hit_stands_for_it(k: str | int) -> None:
    (one,) = cluster([make_hit(i, 0.5 - i / 100) for i in range(9)], np.ones((9, 4)), k)
    assert len(one) == 9 and one.representative.chunk.id == "c000"
    assert one.covered == pytest.approx(one.weight)


def test_two_hits_that_differ_stay_two() -> None:
    hits = [make_hit(0, 0.5), make_hit(1, 0.4)]
    assert len(cluster(hits, np.eye(2))) == 2
    assert len(cluster(hits, np.ones((2, 2)))) == 1


def test_zero_vectors_are_alike_and_unlike_others() -> None:
    hits = [make_hit(i, 0.3) for i in range(4)]
    found = cluster(hits, np.array([[0, 0], [1, 0], [0, 0], [1, 0]]), 2)
    assert sorted(one.ids for one in found) == [("c000", "c002"), ("c001", "c003")]


def test_no_hits_no_clusters() -> None:
    assert [cluster([], np.zeros((0, 4)), k) for k in RULES] == [()] * len(RULES)  # type: ignore[arg-type]


def test_balance_weighs_relevance_against_the_centre() -> None:
    hits = [make_hit(0, 0.9), make_hit(1, 0.8), make_hit(2, 0.1)]
    vectors = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.1]])
    chosen = [cluster(hits, vectors, 1, balance=balance)[0].representative.chunk.id for balance in (1.0, 0.0)]
    assert chosen == ["c000", "c002"]


def test_a_representative_is_the_argmax_that_the_formula_says() -> None:
    points = unit_rows(np.random.default_rng(4).standard_normal((6, 3)), 6)
    relevance = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
    centre = points.sum(axis=0) / np.linalg.norm(points.sum(axis=0))
    worth = 0.6 * relevance / 0.5 - 0.4 * (1 - points @ centre)
    (chosen,) = Space(points, relevance, 0.6).representatives(np.zeros(6, np.int64))
    assert chosen == worth.argmax()


@pytest.mark.parametrize("k", [0, -1, True, "elbow", 2.0])
def test_a_wrong_k_is_refused(k: object) -> None:
    with pytest.raises(ValueError, match="`k` must be"):
        cluster([make_hit(0, 0.5)], np.ones((1, 2)), k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [(np.ones((2, 2)), "1 hits"), (np.ones(2), "1 hits"), (np.array([[np.nan, 1.0]]), "finite")],
)
def test_vectors_that_do_not_go_with_the_hits_are_refused(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster([make_hit(0, 0.5)], vectors)


def test_a_wrong_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="`balance`"):
        cluster([make_hit(0, 0.5)], np.ones((1, 2)), balance=1.5)


@pytest.mark.parametrize("multi_vector", [False, True])
def test_vectors_of_hits_come_from_text_and_headings(multi_vector: bool) -> None:
    encoder = HashingEncoder(32, multi_vector=multi_vector)
    hits = [make_hit(0, 0.5, "the fox sleeps"), make_hit(1, 0.4, "a train leaves"), make_hit(2, 0.3, "the fox sleeps")]
    vectors = hit_vectors(hits, encoder)
    assert vectors.shape == (3, 32) and (vectors[0] == vectors[2]).all() and not (vectors[0] == vectors[1]).all()
    assert hit_vectors([], encoder).shape == (0, 32)


def test_a_text_without_rows_has_a_vector_of_zeros() -> None:
    made = pooled(Vectors(np.ones((2, 3), np.float32), np.array([0, 2, 2])))
    assert made.tolist() == [[1, 1, 1], [0, 0, 0]]
