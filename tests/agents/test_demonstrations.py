"""Demonstrations: which examples to annotate, and which to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxkit
from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder
from ctxkit.testing import WhitespaceCounter
from ctxkit_agents.demonstrations import Demonstrations, Example, select_to_annotate


class Plane(HashingEncoder):
    """Texts "x y" are points of the plane, so that cosines can be worked out by hand."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        points = np.array([[float(n) for n in text.split()] for text in texts], np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return Vectors(points, np.arange(len(texts) + 1))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.encode_documents(texts)


WORDS = HashingEncoder(dims=256)
POOL = [
    Example("the capital of France", "Paris"),
    Example("the capital city of France", "Paris"),
    Example("two plus two", "4"),
    Example("the capital of Peru", "Lima"),
]


# --- showing ----------------------------------------------------------------------------------------------------------


def test_the_most_similar_example_stands_last_next_to_the_question() -> None:
    parts = Demonstrations(POOL, WORDS, k=2).parts("what is the capital of Peru")
    assert [part.content for part in parts][-2:] == ["the capital of Peru", "Lima"]
    assert [(part.role, part.group) for part in parts[:2]] == [
        ("user", parts[0].group),
        ("assistant", parts[0].group),
    ]
    assert parts[0].relevance < parts[-1].relevance <= 1


def test_diversity_leaves_out_what_is_like_an_example_already_taken() -> None:
    pool = [Example("1 0", "a"), Example("10 1", "b"), Example("0 1", "c")]
    assert [at for at, _ in Demonstrations(pool, Plane(2), k=3).chosen("1 0")] == [0, 1, 2]
    assert [at for at, _ in Demonstrations(pool, Plane(2), k=3, diversity=0.6).chosen("1 0")] == [0, 2, 1]


def test_fit_shows_as_many_as_the_window_holds_the_most_similar_first() -> None:
    pool = [Example(f"number {n} " + "alike " * n, f"out {n}") for n in range(1, 9)]
    asked = "alike " * 9
    parts = Demonstrations(pool, WORDS, k=8).parts(asked)
    plan = ctxkit.fit(
        [*parts, ctxkit.question(asked)],
        budget=ctxkit.Budget(window_tokens=70, reserve_tokens=5),
        counter=WhitespaceCounter(),
    )
    kept = [one.part for one in plan.decisions if one.kept and one.part.kind == "turn"]
    assert 0 < len(kept) < len(parts) and len(kept) % 2 == 0
    assert kept[-1] == parts[-1]
    assert [message.role for message in plan.messages] == ["user", "assistant"] * (len(kept) // 2) + ["user"]


def test_the_pool_is_encoded_once() -> None:
    class Counting(HashingEncoder):
        calls = 0

        def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
            Counting.calls += len(texts) == len(POOL)
            return super().encode_documents(texts, progress=progress)

    demonstrations = Demonstrations(POOL, Counting(32))
    assert demonstrations.parts("a") == demonstrations.parts("a") and Counting.calls == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": []},
        {"pool": [Example("a", "1"), Example("a", "2")]},
        {"k": 0},
        {"diversity": 1.5},
        {"encoder": HashingEncoder(8, multi_vector=True)},
    ],
)
def test_a_pool_that_cannot_be_searched_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Demonstrations(**{"pool": POOL, "encoder": WORDS, **wrong})


# --- annotating -------------------------------------------------------------------------------------------------------


def test_vote_k_takes_the_centre_of_the_crowd_and_then_of_the_next_one() -> None:
    crowd = ["100 0", "100 1", "100 -1"]  # its first is nearest to both others
    pair = ["0 100", "1 100"]
    first, second = select_to_annotate([*pair, *crowd], Plane(2), 2, k=1)
    assert first == 2 and second in (0, 1)


def test_a_vote_counts_a_tenth_once_the_voter_has_one_of_its_neighbours() -> None:
    # k = 2 in a crowd of three: all have 2 votes; once one is chosen the others have 1/10 + 1/10 and the pair 1 each.
    texts = ["100 0", "100 1", "100 -1", "0 100", "1 100"]
    assert select_to_annotate(texts, Plane(2), 2, k=2, rho=10) == [*_by_hand(texts, 2, 2, 10.0)]


def _by_hand(texts: list[str], n: int, k: int, rho: float) -> list[int]:
    """vote-k as the paper writes it, without arrays."""
    vectors = Plane(2).encode_documents(texts).values
    cosines = [[round(float(np.float32(a @ b)), 6) for b in vectors] for a in vectors]
    votes = {
        v: sorted((u for u in range(len(texts)) if u != v), key=lambda u: (-cosines[v][u], u))[:k]
        for v in range(len(texts))
    }
    chosen: list[int] = []
    while len(chosen) < n:
        left = [u for u in range(len(texts)) if u not in chosen]
        scores = {u: sum(rho ** -sum(one in chosen for one in votes[v]) for v in left if u in votes[v]) for u in left}
        chosen.append(max(left, key=lambda u: (round(scores[u], 9), -u)))
    return chosen


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 9)), min_size=2, max_size=12), st.data())
def test_the_choice_is_that_of_the_plain_definition(points: list[tuple[int, int]], data: st.DataObject) -> None:
    texts = [f"{x} {y}" for x, y in points]
    n = data.draw(st.integers(1, len(texts)))
    k = data.draw(st.integers(1, 4))
    assert select_to_annotate(texts, Plane(2), n, k=k) == _by_hand(texts, n, k, 10.0)


@settings(max_examples=50)
@given(st.integers(1, 40), st.data())
def test_so_many_different_texts_are_chosen_also_by_confidence(count: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, count))
    sure = data.draw(st.lists(st.floats(-9, 0), min_size=count, max_size=count))
    chosen = select_to_annotate([f"text {i} of {i % 7}" for i in range(count)], WORDS, n, confidence=lambda first: sure)
    assert len(chosen) == len(set(chosen)) == n and set(chosen) <= set(range(count))


def test_the_surest_texts_are_not_annotated() -> None:
    texts = [f"text {i}" for i in range(100)]
    told: list[Sequence[int]] = []

    def confidence(first: Sequence[int]) -> list[float]:
        told.append(first)
        return [float(i) for i in range(100)]  # the later, the surer

    chosen = select_to_annotate(texts, WORDS, 20, confidence=confidence)
    assert len(told) == 1 and list(told[0]) == chosen[:2]
    rest = [i for i in range(100) if i not in chosen[:2]]
    assert max(rest.index(i) for i in chosen[2:]) < 98 * 18 / 20 + 1  # of 20 buckets the last two are left out
    buckets = [int(rest.index(i) // (98 / 20)) for i in chosen[2:]]
    assert buckets == sorted(buckets)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 3}, {"k": 0}, {"rho": 1.0}])
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        select_to_annotate(["a", "b"], WORDS, **{"n": 1, **wrong})


@pytest.mark.parametrize("sure", [[], [0.1], [0.1, float("nan"), 0.1]])
def test_a_confidence_that_is_missing_is_refused(sure: list[float]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        select_to_annotate(["a", "b", "c"], WORDS, 2, confidence=lambda first: sure)


def test_one_text_alone_is_chosen() -> None:
    assert select_to_annotate(["alone"], WORDS, 1) == [0]
