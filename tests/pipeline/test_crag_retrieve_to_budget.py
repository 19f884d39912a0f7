"""Retrieve to a budget: the plan is that of many candidates, however few were fetched, and at once or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Budget, Part, Plan, fit, question, system
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import StoreError
from ctxkit.retrieval import HashingEncoder, Hit, Index
from ctxkit.retrieval.to_budget import retrieve_to_budget
from ctxkit.testing import WhitespaceCounter

COUNTER = WhitespaceCounter()
QUERY = "when does the night train to velmora leave"


class Fetching:
    """An index that remembers how many hits it was asked for."""

    def __init__(self, index: Index) -> None:
        self.index, self.path, self.asked = index, index.path, []

    def search(self, query: str, k: int, **options: Any) -> list[Hit]:
        self.asked.append(k)
        return self.index.search(query, k, **options)


def chunks(count: int) -> Iterator[Chunk]:
    """Passages of 5 to 34 words that share more or fewer words with the query, some of them twice."""
    words = QUERY.split()
    for n in range(count):
        common = words[: 8 - n % 8] + [f"filler{(n * 7 + j) % 91}" for j in range(4 + (n * 13) % 30)]
        yield Chunk(f"c{n:03d}", f"s{n % 4}.md", " ".join(common if n % 5 else [*common, "again"]))


@pytest.fixture(scope="module")
def fetching() -> Iterator[Fetching]:
    with Index.in_memory(encoder=HashingEncoder(64)) as index:
        index.add(chunks(120))
        yield Fetching(index)


def ids(plan: Plan) -> list[str]:
    return [decision.part.id for decision in plan.kept]


def retrieved(fetching: Fetching, tokens: int, **options: Any) -> Plan:
    fetching.asked.clear()
    return retrieve_to_budget(fetching, QUERY, Budget(tokens), COUNTER, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("jaccard", [None, 0.5])
@pytest.mark.parametrize("tokens", [60, 150, 400, 1000, 10_000])
def test_a_larger_first_batch_gives_the_same_plan(fetching: Fetching, tokens: int, jaccard: float | None) -> None:
    plans = [retrieved(fetching, tokens, first=first, jaccard=jaccard) for first in (1, 5, 16, 64, 200)]
    assert all(plan.text == plans[0].text and plan.ids == plans[0].ids for plan in plans)
    assert all(plan.prompt_tokens <= tokens for plan in plans)


def test_k_follows_from_the_budget(fetching: Fetching) -> None:
    kept, looked_at = [], []
    for tokens in (60, 150, 400, 1000, 10_000):
        kept.append(len(retrieved(fetching, tokens, first=4).passages))
        looked_at.append(max(fetching.asked))
    assert kept == sorted(kept) and kept[0] < kept[2] < kept[-1] == 120
    assert looked_at == sorted(looked_at) and looked_at[0] < 120


@settings(max_examples=25)
@given(tokens=st.integers(40, 900))
def test_more_candidates_would_have_been_worth_nothing(fetching: Fetching, tokens: int) -> None:
    plan = retrieved(fetching, tokens)
    every = fit([hit.as_part() for hit in fetching.search(QUERY, 120)], budget=Budget(tokens), counter=COUNTER)
    assert plan.prompt_tokens <= tokens and plan.value >= 0.99 * every.value


def test_other_parts_of_the_prompt_stand_where_they_are_put(fetching: Fetching) -> None:
    def arrange(passages: Sequence[Part]) -> list[Part]:
        return [system("Answer."), *reversed(passages), question(QUERY)]

    plan = retrieved(fetching, 200, arrange=arrange)
    assert plan.messages[0].content == "Answer." and plan.messages[-1].content.endswith(QUERY)
    relevances = [decision.part.relevance for decision in plan.kept][1:-1]
    assert relevances == sorted(relevances) and len(relevances) > 2


def test_near_duplicates_leave_their_place_to_others(fetching: Fetching) -> None:
    plain, distinct = retrieved(fetching, 150), retrieved(fetching, 150, jaccard=0.5)
    assert len(set(ids(distinct)) - set(ids(plain))) > 0


def test_passages_of_less_than_the_least_value_are_not_fetched_for(fetching: Fetching) -> None:
    plan = retrieved(fetching, 10_000, first=4, least_value=0.02)
    assert plan.kept and all(decision.part.relevance >= 0.02 for decision in plan.decisions)
    assert max(fetching.asked) < 120


def test_filters_go_to_the_search_and_most_is_a_limit(fetching: Fetching) -> None:
    plan = retrieved(fetching, 10_000, sources=["s1.md"])
    assert len(plan.kept) == 30 and {decision.part.id for decision in plan.kept} == {
        f"c{n:03d}" for n in range(1, 120, 4)
    }
    assert len(retrieved(fetching, 10_000, most=21).kept) == 21 and max(fetching.asked) == 21


def test_nothing_found_is_said(fetching: Fetching) -> None:
    with pytest.raises(StoreError, match="holds nothing"):
        retrieved(fetching, 100, sources=["none"])
    plan = retrieved(fetching, 100, sources=["none"], arrange=lambda passages: [*passages, question("Why?")])
    assert len(plan.kept) == 1


@pytest.mark.parametrize("name", ["first", "most"])
def test_numbers_below_one_are_refused(fetching: Fetching, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        retrieved(fetching, 100, **{name: 0})
