"""MMR and near-duplicate removal: baselines with one right answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Hit
from ctxkit.retrieval.clusters import hit_vectors, mmr, novel, shingles, without_near_duplicates

WORDS = st.lists(st.sampled_from("red fox sleeps under old stone bridge by night".split()), max_size=8)


def hits_of(texts: list[str]) -> list[Hit]:
    return [Hit(Chunk(f"c{i}", "a.md", text), i + 1, 1 / (i + 1), 1 / (i + 2)) for i, text in enumerate(texts)]


def names(hits: list[Hit]) -> list[str]:
    return [hit.chunk.id for hit in hits]


def test_mmr_by_hand() -> None:
    hits = hits_of(["a", "b", "c"])  # scores 1, 1/2, 1/3
    vectors = np.array([[1, 0], [1, 0], [0, 1]])
    assert names(mmr(hits, vectors, balance=1.0)) == ["c0", "c1", "c2"]
    assert names(mmr(hits, vectors, balance=0.5)) == ["c0", "c2", "c1"]  # c1: .25 - .5, c2: .167 - 0
    assert names(mmr(hits, vectors, 1, balance=0.5)) == ["c0"]


@given(st.lists(WORDS, max_size=7), st.floats(0, 1), st.integers(0, 9))
def test_mmr_only_reorders(texts: list[list[str]], balance: float, k: int) -> None:
    hits = hits_of([" ".join(words) for words in texts])
    vectors = hit_vectors(hits, HashingEncoder(16))
    taken = mmr(hits, vectors, k, balance=balance)
    assert len(taken) == min(k, len(hits)) == len(set(names(taken)))
    assert taken == mmr(hits, vectors, balance=balance)[:k]


def test_mmr_refuses_a_wrong_balance() -> None:
    with pytest.raises(ValueError, match="`balance`"):
        mmr([], np.zeros((0, 2)), balance=-0.1)


def test_scores_below_zero_are_worth_nothing() -> None:
    hits = [Hit(Chunk(f"c{i}", "a.md", "x"), i + 1, score, 0.1) for i, score in enumerate([-1.0, -2.0])]
    assert names(mmr(hits, np.eye(2))) == ["c0", "c1"]


@given(st.lists(WORDS, max_size=7), st.floats(0.05, 1))
def test_what_stays_differs_and_what_goes_repeats(texts: list[list[str]], jaccard: float) -> None:
    hits = hits_of([" ".join(words) for words in texts])
    stayed = without_near_duplicates(hits, jaccard=jaccard)
    assert [hit for hit in hits if hit in stayed] == stayed

    def index(one: Hit, other: Hit) -> float:
        first, second = shingles(one.chunk.text), shingles(other.chunk.text)
        return len(first & second) / len(first | second) if first | second else 1.0

    for at, one in enumerate(stayed):
        assert all(index(one, other) < jaccard for other in stayed[:at])
    for gone in (hit for hit in hits if hit not in stayed):
        assert any(index(gone, other) >= jaccard for other in stayed if other.rank < gone.rank)
    for cut in range(len(hits)):
        some = without_near_duplicates(hits[:cut], jaccard=jaccard)
        assert some == stayed[: len(some)]


def test_cosine_or_shingles_suffice() -> None:
    hits = hits_of(["the red fox sleeps", "the red fox sleeps!", "by night"])
    vectors = np.array([[1, 0], [0, 1], [1, 0.01]])
    assert names(without_near_duplicates(hits)) == ["c0", "c2"]
    assert names(without_near_duplicates(hits, vectors, cosine=0.99)) == ["c0", "c1"]
    assert names(without_near_duplicates(hits, vectors, cosine=0.99, jaccard=0.8)) == ["c0"]
    with pytest.raises(ValueError, match="pass `vectors`"):
        without_near_duplicates(hits, cosine=0.9)


def test_shingles_of_scripts_without_spaces_are_characters() -> None:
    assert len(shingles("東京都は日本")) == 4
    assert shingles("") == shingles("…") == frozenset()


def test_novel_is_what_is_mostly_new() -> None:
    known = shingles("the red fox sleeps under the bridge")
    assert not novel(shingles("The red fox sleeps under the bridge."), known)
    assert not novel(shingles("…"), known)
    assert novel(shingles("a train leaves at nine"), known)
