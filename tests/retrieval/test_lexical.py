"""BM25 over documents that come and go is BM25 over those that are there."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.retrieval import lexical, postings
from ctxkit.retrieval.growing import Growing
from ctxkit.retrieval.lexical import LexicalIndex
from ctxkit.retrieval.terms import terms

WORDS = ["fox", "owl", "night", "red", "blue", "tree"]
documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=8), max_size=6)
queries = st.lists(st.sampled_from([*WORDS, "absent"]), max_size=6).map(" ".join)
loose_rows = st.sampled_from([0, 6, 4096])  # 0: sorted at nearly every write, 4096: never


def index_of(given: list[list[str]]) -> LexicalIndex:
    index = LexicalIndex()
    index.add(given)
    return index


def brute_force(query: str, live: dict[int, list[str]]) -> dict[int, float]:
    """Lucene's BM25 of the documents that share a term with the query."""
    bags = {number: Counter(document) for number, document in live.items()}
    mean = sum(map(len, live.values())) / max(len(live), 1)
    scores: Counter[int] = Counter()
    for term in set(terms(query)):
        holders = [number for number, bag in bags.items() if bag[term]]
        idf = math.log(1 + (len(live) - len(holders) + 0.5) / (len(holders) + 0.5))
        for number in holders:
            tf = bags[number][term]
            scores[number] += idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * len(live[number]) / mean))
    return dict(scores)


@st.composite
def histories(draw):
    """An index after adds and removes in any order, and the documents that it still holds."""
    index, live = LexicalIndex(), {}
    for _ in range(draw(st.integers(1, 8))):
        new = draw(documents)
        live.update(enumerate(new, start=len(index)))
        index.add(iter(new))
        gone = draw(st.sets(st.sampled_from(range(len(index))), max_size=6)) if len(index) else set()
        index.remove(gone)
        live = {number: document for number, document in live.items() if number not in gone}
    return index, live


@given(data=st.data(), loose=loose_rows, query=queries)
def test_any_history_scores_as_brute_force_over_what_is_live(data, loose, query):
    with patch.object(postings, "_LOOSE_ROWS", loose):
        index, live = data.draw(histories())
    truth = brute_force(query, live)
    run = index.search(query, max(len(index), 1))
    assert dict(zip(run.positions.tolist(), run.scores.tolist(), strict=True)) == pytest.approx(truth, abs=1e-10)
    assert (run.positions.dtype, run.scores.dtype) == (np.int64, np.float64)
    assert index.scores(query) == pytest.approx([truth.get(number, 0.0) for number in range(len(index))], abs=1e-6)


@given(data=st.data(), loose=loose_rows, query=queries)
def test_any_history_gives_the_very_scores_of_an_index_made_anew(data, loose, query):
    with patch.object(postings, "_LOOSE_ROWS", loose):
        index, live = data.draw(histories())
    order = data.draw(st.permutations(sorted(live)))
    anew = index_of([live[number] for number in order]).scores(query)
    assert index.scores(query)[order].tolist() == anew.tolist()
    assert np.count_nonzero(index.scores(query)) == np.count_nonzero(anew)


@given(data=st.data(), query=queries, depth=st.integers(1, 5))
def test_a_run_is_the_best_allowed_with_all_ties_of_the_last(data, query, depth):
    index, live = data.draw(histories())
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(index), max_size=len(index))), bool)
    whole = index.search(query, max(len(index), 1))
    scores = dict(zip(whole.positions.tolist(), whole.scores.tolist(), strict=True))
    ranked = sorted((number for number in scores if allowed[number]), key=lambda number: (-scores[number], number))
    wanted = [number for number in ranked if scores[number] >= scores[ranked[:depth][-1]]]
    run = index.search(query, depth, allowed)
    assert run.positions.tolist() == wanted
    assert run.scores.tolist() == [scores[number] for number in wanted]


@given(given_documents=documents, query=queries)
def test_scores_are_those_of_bm25s(given_documents, query):
    bm25s = pytest.importorskip("bm25s")
    if not any(given_documents):
        return
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    peer.index(given_documents, show_progress=False)
    known = [word for word in dict.fromkeys(terms(query)) if any(word in document for document in given_documents)]
    truth = peer.get_scores(known) if known else np.zeros(len(given_documents))
    assert index_of(given_documents).scores(query) == pytest.approx(truth, abs=1e-5)


def test_scores_are_those_of_bm25s_over_thousands_of_documents():
    bm25s = pytest.importorskip("bm25s")
    draw = np.random.default_rng(0)
    words = [f"w{number}" for number in range(3000)]
    given_documents = [[words[i] for i in draw.zipf(1.3, size) % 3000] for size in draw.integers(1, 60, 3000)]
    index = index_of(given_documents[:1000])
    index.add(given_documents[1000:1100])
    for document in given_documents[1100:]:
        index.add([document])
    gone = draw.choice(3000, 700, replace=False)
    index.remove(gone)
    kept = np.setdiff1d(np.arange(3000), gone)
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    peer.index([given_documents[i] for i in kept], show_progress=False)
    for query in (["w1"], ["w2", "w7", "w31"], ["w1", "w2", "w3", "w400"]):
        assert index.scores(" ".join(query))[kept] == pytest.approx(peer.get_scores(query), abs=1e-5)


def test_documents_that_match_equally_well_tie_whichever_terms_they_match():
    orders = list(permutations((1, 2, 3, 5, 7)))
    index = index_of([[word for word, n in zip(WORDS, counts, strict=False) for _ in range(n)] for counts in orders])
    for query in ("fox owl night red blue", "blue red night owl fox", "owl owl night blue fox red"):
        run = index.search(query, 1)
        assert run.positions.tolist() == list(range(len(orders)))
        assert len(set(run.scores.tolist())) == 1


def test_a_match_is_found_however_little_it_scores(monkeypatch):
    index = index_of([["fox"]] * 100)
    assert index.search("fox", 1).scores[0] == pytest.approx(math.log(1 + 0.5 / 100.5) / 2.2)
    monkeypatch.setattr(lexical, "_GRID", 64.0)  # coarser than that score
    assert len(index.search("fox", 1)) == 100


def test_a_word_that_only_removed_documents_hold_is_not_found():
    index = index_of([["fox"], ["owl"]])
    index.remove([0])
    assert len(index.search("fox", 5)) == 0
    assert index.scores("fox owl").tolist() == [0.0, pytest.approx(math.log(4 / 3) / 2.2)]
    index.remove([1])
    assert index.scores("fox owl").tolist() == [0.0, 0.0]


def test_removing_twice_is_no_error_and_counts_once():
    index, once = (index_of([["fox"], ["fox", "owl"], ["owl"]]) for _ in range(2))
    once.remove([1])
    index.remove([1, 1])
    index.remove(np.array([1]))
    assert index.scores("fox").tolist() == once.scores("fox").tolist()


def test_numbers_never_change():
    index = index_of([["fox"], ["owl"]])
    index.remove([0])
    index.add([["fox"]])
    assert (len(index), index.search("fox", 5).positions.tolist()) == (3, [2])


@pytest.mark.parametrize("wrong", [-1, 2])
def test_removing_what_was_never_added_is_refused_and_removes_nothing(wrong):
    index = index_of([["fox"], ["fox"]])
    before = index.scores("fox").tolist()
    with pytest.raises(IndexError, match=rf"no documents \[{wrong}\] among the 2"):
        index.remove([0, wrong])
    assert index.scores("fox").tolist() == before


def test_an_add_that_fails_adds_nothing():
    index = index_of([["fox"]])
    with pytest.raises(TypeError):
        index.add([["owl", ["red"]]])  # type: ignore[list-item]
    assert (len(index), len(index.search("owl red", 3))) == (1, 0)
    assert index.scores("fox").tolist() == index_of([["fox"]]).scores("fox").tolist()


@pytest.mark.parametrize("given_documents", [[], [[]], [[], [], []]])
def test_an_index_without_words_finds_nothing(given_documents):
    index = index_of(given_documents)
    assert (len(index), len(index.search("fox", 3))) == (len(given_documents), 0)
    assert index.scores("fox").tolist() == [0.0] * len(given_documents)
    index.remove(range(len(given_documents)))
    assert len(index.search("fox", 3)) == 0


def test_documents_added_while_many_are_held_are_not_sorted_in_one_by_one(monkeypatch):
    monkeypatch.setattr(postings, "_LOOSE_ROWS", 0)
    sorts = []
    sort = postings.Postings._sort
    monkeypatch.setattr(postings.Postings, "_sort", lambda self: sorts.append(sort(self)))
    index = LexicalIndex()
    for _ in range(1000):
        index.add([["fox", "owl"]])
    assert len(sorts) < math.log(1000, 4 / 3) + 5
    for number in range(900):
        index.remove([number])
    assert len(sorts) < 2 * math.log(1000, 4 / 3) + 10
    assert len(index.search("fox", 1)) == 100
    assert len(index._postings._terms) < 2 * 200  # the rows of what was removed are given back


@given(parts=st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=9))
def test_a_growing_array_holds_what_was_appended(parts):
    flat, pairs = Growing(np.uint8), Growing(np.int64, columns=2)
    for part in parts:
        flat.extend(part)
        pairs.extend(np.array([part, part], np.int64).T)
    wanted = [number for part in parts for number in part]
    assert (len(flat), flat.values.tolist(), flat.values.dtype) == (len(wanted), wanted, np.uint8)
    assert pairs.values.tolist() == [[number, number] for number in wanted]


def test_a_growing_array_can_be_written_to_and_refuses_other_shapes():
    rows = Growing(np.float32, columns=2)
    rows.extend([[1, 2]])
    rows.values[0] = 7
    assert rows.values.tolist() == [[7, 7]]
    for wrong in ([1, 2], [[1, 2, 3]], 4):
        with pytest.raises(ValueError, match=r"expected rows of shape \(2,\)"):
            rows.extend(wrong)
