"""CRAG: within the budget whatever comes, every hit named, and a model that fails costs a warning."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.compression import SummaryRejected
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import BudgetInfeasible, PartError
from ctxkit.models.requests import Request
from ctxkit.pipeline.crag import ClusteredRag, Crag
from ctxkit.pipeline.merge import joined, merged
from ctxkit.pipeline.shares import shares_of_clusters, water_filled
from ctxkit.retrieval import HashingEncoder, Hit, Index
from ctxkit.retrieval.clusters import cluster, hit_vectors
from ctxkit.testing import ScriptedModel, WhitespaceCounter

ENCODER = HashingEncoder(64)
COUNTER = WhitespaceCounter()
FOX = "The red fox sleeps under the old stone bridge. It wakes when the bell rings at nine."
TRAIN = "The night train leaves from platform four. A ticket to Velmora costs twelve euros."
GARDEN = "The garden opens in spring. Roses grow along the southern wall of it."
ASKED = "What does a ticket to Velmora cost?"


def hits_of(texts: Sequence[str], relevances: Sequence[float] | None = None) -> list[Hit]:
    relevances = relevances or [0.6 / (i + 1) for i in range(len(texts))]
    return [
        Hit(Chunk(f"c{i}", f"s{i % 2}.md", text, start_line=i + 1, end_line=i + 1), i + 1, relevance, relevance)
        for i, (text, relevance) in enumerate(zip(texts, relevances, strict=True))
    ]


def packed(rag: ClusteredRag, hits: Sequence[Hit], budget: int, asked: str = ASKED) -> Crag:
    return rag.pack(asked, hits, hit_vectors(hits, ENCODER), budget_tokens=budget, counter=COUNTER)


COPIES = [FOX, TRAIN, f"Note: {FOX}", f"As reported: {TRAIN}", GARDEN, f"{FOX} Really.", TRAIN, GARDEN]
SENTENCES = st.sampled_from(
    [
        *FOX.split(". "),
        *TRAIN.split(". "),
        *GARDEN.split(". "),
        "x",
        "",
        "Roses.\nBells 17 and 18.",
        "夜行列車は九時に出る。",
    ]
)
TEXTS = st.lists(st.lists(SENTENCES, max_size=6).map(". ".join), min_size=1, max_size=9)
RULES = st.sampled_from(["silhouette", "paper", "budget", 1, 3])


@settings(max_examples=80)
@given(TEXTS, RULES, st.sampled_from(["representatives", "extract"]), st.integers(1, 120))
def test_never_above_the_budget_and_every_hit_is_named(texts: list[str], k: str, mode: str, budget: int) -> None:
    hits = hits_of(texts)
    rag = ClusteredRag(mode, k)  # type: ignore[arg-type]
    try:
        made = packed(rag, hits, budget)
    except BudgetInfeasible as error:
        assert error.minimum > budget
        return
    assert COUNTER.render(made.plan.messages).tokens == made.tokens_out <= budget
    assert sorted(name for one in made.clusters for name in one.ids) == sorted(hit.chunk.id for hit in hits)
    by_name = {one.representative.chunk.id: one for one in made.clusters}
    for part in made.parts:
        assert part.metadata["ids"] == list(by_name[part.id].ids)
        assert set(part.metadata["sources"]) == {hit.chunk.source for hit in by_name[part.id].hits}
        assert all(hit.chunk.location in part.source for hit in by_name[part.id].hits)
    assert 0 <= made.coverage <= 1 and made.parts
    again = packed(rag, hits, budget)
    assert again.plan.text == made.plan.text and again.clusters == made.clusters


@settings(max_examples=80)
@given(TEXTS, RULES)
def test_where_all_fits_every_cluster_is_in(texts: list[str], k: str) -> None:
    made = packed(ClusteredRag("extract", k), hits_of(texts), 10_000)  # type: ignore[arg-type]
    told = [one for one in made.clusters if joined(merged(one)).strip()] or list(made.clusters[:1])
    names = [part.id for part in made.parts]
    assert [one.representative.chunk.id for one in told if one.representative.chunk.id not in names] == []


def test_copies_share_one_passage() -> None:
    made = packed(ClusteredRag("representatives", 3), hits_of(COPIES), 200)
    assert sorted(sorted(part.metadata["ids"]) for part in made.parts) == [
        ["c0", "c2", "c5"],
        ["c1", "c3", "c6"],
        ["c4", "c7"],
    ]
    assert made.tokens_in > 2 * made.tokens_out and made.saved > 0.5 and made.coverage > 0.9


def test_representatives_are_sent_whole_and_extracts_answer_the_question() -> None:
    hits = hits_of(COPIES)
    whole = packed(ClusteredRag("representatives", 3), hits, 200)
    assert {part.content for part in whole.parts} <= {hit.chunk.text for hit in hits}
    short = packed(ClusteredRag("extract", 1), hits, 26)
    assert "A ticket to Velmora costs twelve euros." in short.plan.text and len(short.plan.text) < len(FOX + TRAIN)


def test_a_cluster_says_each_thing_once_and_keeps_what_only_a_number_tells_apart() -> None:
    texts = [FOX, f"Note: {FOX}", FOX.replace("nine", "9:30"), TRAIN]
    (one,) = cluster(hits_of(texts), np.ones((4, 2)), 1)
    text = joined(merged(one))
    assert text.count("sleeps under") == 1 and text.count("rings at") == 2 and "9:30" in text and TRAIN in text


def test_the_weightier_cluster_gets_the_larger_share() -> None:
    long_fox, long_train = (
        " ".join([FOX, GARDEN] * 6),
        " ".join([TRAIN] * 3 + [f"Wagon {n} is blue." for n in range(40)]),
    )
    hits = hits_of([long_fox, long_train, long_train], [0.2, 0.3, 0.3])
    made = packed(ClusteredRag("extract", 2), hits, 100)
    sizes = [COUNTER.count(part.content) for part in made.parts]
    assert [part.id for part in made.parts] == ["c1", "c0"] and sizes[0] > 2 * sizes[1] and sum(sizes) > 70


def test_where_nothing_repeats_passages_are_taken_in_turn_and_the_last_is_cut() -> None:
    long_train = " ".join(f"Wagon {n} is blue." for n in range(40))
    made = packed(ClusteredRag("extract", 2), hits_of([long_train, FOX, GARDEN], [0.1, 0.5, 0.3]), 60)
    assert [part.id for part in made.parts] == ["c1", "c2", "c0"]
    assert [part.content for part in made.parts[:2]] == [FOX, GARDEN]
    assert 0 < len(made.parts[2].content) < len(long_train) and len(made.clusters) == 3


def test_hits_without_relevance_count_alike() -> None:
    made = packed(ClusteredRag("extract", 3), hits_of(COPIES, [0.0] * 8), 300)
    assert len(made.parts) == 3 and made.coverage == 0.0


def test_relevances_above_one_in_sum_are_scaled() -> None:
    made = packed(ClusteredRag("representatives", 3), hits_of(COPIES, [0.9] * 8), 300)
    assert sum(part.relevance for part in made.parts) == pytest.approx(1.0)


def test_nothing_found_or_no_room_is_refused() -> None:
    with pytest.raises(PartError, match="no hits"):
        packed(ClusteredRag(), [], 100)
    for mode in ("representatives", "extract"):
        with pytest.raises(BudgetInfeasible):
            packed(ClusteredRag(mode), hits_of([FOX]), 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"mode": "crag"}, {"mode": "summarise"}, {"threads": 0}, {"summary_tokens": 0}])
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mode|threads|summary_tokens"):
        ClusteredRag(**settings)  # type: ignore[arg-type]


def _long(text: str) -> str:
    return " ".join(f"{text} Remark {n} of it." for n in range(12))


def test_summaries_are_asked_at_once_and_cached() -> None:
    together = threading.Barrier(3, timeout=20)

    def say(request: Request) -> str:
        together.wait()  # three clusters: passes only if all three are asked before one is answered
        return "Short."

    model = ScriptedModel(say)
    cache: dict[str, str] = {}
    rag = ClusteredRag("summarise", 3, model=model, cache=cache)
    hits = hits_of([_long(FOX), _long(TRAIN), _long(GARDEN)])
    made = packed(rag, hits, 300)
    assert all(part.content.endswith("Short.") for part in made.parts) and len(cache) == len(model.prompts) == 3
    assert packed(rag, hits, 300).plan.text == made.plan.text and len(model.prompts) == 3


def test_a_model_that_fails_costs_a_warning_and_the_cluster_is_extracted() -> None:
    def say(request: Request) -> str | Exception:
        text = request.messages[-1].content
        return RuntimeError("the server is down") if "platform four" in text else "All about it."

    rag = ClusteredRag("summarise", 3, model=ScriptedModel(say))
    with pytest.warns(SummaryRejected, match="the server is down"):
        made = packed(rag, hits_of([_long(FOX), _long(TRAIN), _long(GARDEN)]), 120)
    contents = {part.id: part.content for part in made.parts}
    assert "A ticket to Velmora costs twelve euros." in contents["c1"] and "the server is down" not in made.plan.text
    assert "All about it." in contents["c0"] and made.tokens_out <= 120


@settings(max_examples=40)
@given(st.integers(10, 200))
def test_summaries_keep_to_the_budget(budget: int) -> None:
    model = ScriptedModel(lambda _: " ".join(f"word{n}" for n in range(60)) + ".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SummaryRejected)
        made = packed(ClusteredRag("summarise", 3, model=model, threads=1), hits_of([_long(FOX), _long(TRAIN)]), budget)
    assert made.tokens_out <= budget


def test_search_takes_the_hits_of_an_index() -> None:
    with Index.in_memory(encoder=ENCODER) as index:
        index.add(hit.chunk for hit in hits_of(COPIES))
        made = ClusteredRag(k=3).search(index, ASKED, budget_tokens=90, counter=COUNTER, sources=["s1.md"])
        assert {hit.chunk.source for one in made.clusters for hit in one.hits} == {"s1.md"}
        assert "twelve euros" in made.plan.text
    assert json.loads(json.dumps(made.to_dict()))["tokens_out"] == made.tokens_out
    assert repr(made).startswith("Crag(extract, ") and "\n" not in repr(made)


NEEDS = st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0.0, 1e-9, 0.3, 2.0])), max_size=8)


@given(NEEDS, st.integers(-5, 200))
def test_water_is_neither_spilled_nor_left(given_: list[tuple[int, float]], room: int) -> None:
    needs, weights = [need for need, _ in given_], [weight for _, weight in given_]
    shares = water_filled(needs, weights, room)
    assert all(0 <= share <= need for share, need in zip(shares, needs, strict=True)) and sum(shares) <= max(room, 0)
    thirsty = [i for i, share in enumerate(shares) if share < needs[i]]
    counted = [i for i in thirsty if weights[i] > 0 or not any(weights)]
    assert not counted or sum(shares) >= max(room, 0) - len(needs)
    for one in counted:  # who did not get enough stands at the level of the others, or above it, but for rounding
        for other in (i for i in range(len(needs)) if weights[i] > 0 and weights[one] > 0):
            assert shares[other] / weights[other] <= (shares[one] + 1) / weights[one] + 1 / weights[other] + 1e-6


@given(st.lists(NEEDS, max_size=5), st.integers(0, 200), st.integers(0, 5))
def test_what_would_be_too_little_to_read_goes_to_the_others(
    clusters: list[list[tuple[int, float]]], room: int, overhead: int
) -> None:
    needs, weights = [[[one[i] for one in pieces] for pieces in clusters] for i in (0, 1)]
    shares = shares_of_clusters(needs, weights, [overhead] * len(needs), room)  # type: ignore[arg-type]
    assert len(shares) == len(needs) and sum(shares) <= room
    kept = [i for i, share in enumerate(shares) if share]
    assert all(shares[i] >= min(sum(needs[i]), 16) for i in kept) or len(kept) == 1


def test_needs_and_weights_go_together() -> None:
    with pytest.raises(ValueError, match="2 needs and 1 weights"):
        water_filled([1, 2], [1.0], 3)
