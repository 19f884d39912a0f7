"""What a session keeps from turn to turn: the prompt's beginning, the budget, and everything that was said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit import Budget, BudgetInfeasible, Plan
from ctxkit.context.chat import openai_problems
from ctxkit.context.group import Group
from ctxkit.context.level import source_text
from ctxkit.errors import PartError, StoreError
from ctxkit.protocols import TOOLS, PromptMessage, Rendering, Tool
from ctxkit.session import CachePrices, CacheReport, MemoryOriginals, Session
from ctxkit.testing import WhitespaceCounter, tiny_counter
from tests.session.messages import Message, answer, calls, file_round, lined, result, system, user

Turn = list[Message]


@st.composite
def growing(draw: st.DrawFn) -> list[Turn]:
    """The turns of a conversation: what is added before each plan. The first begins with the user."""
    opening = [system(lined(draw(st.integers(1, 8))))] if draw(st.booleans()) else []
    turns = [[*opening, user(lined(draw(st.integers(1, 20))))]]
    for number in range(draw(st.integers(1, 10))):
        size = draw(st.sampled_from([1, 6, 25, 60, 140]))
        shape = draw(st.sampled_from(["talk", "round", "round", "parallel", "two users", "note"]))
        turns.append(_turn(shape, number, size))
    return turns


def _turn(shape: str, number: int, size: int) -> Turn:
    text = lined(size, number)
    if shape == "round":
        return file_round(f"c{number}", text)
    if shape == "parallel":
        ids = [f"p{number}-{i}" for i in range(3)]
        return [calls(*[(i, "{}") for i in ids]), *[result(i, text) for i in ids]]
    if shape == "two users":
        return [user(lined(4, number)), user(lined(5, number))]
    if shape == "note":
        return [answer(text), system(lined(3, number)), user(lined(5, number))]
    return [answer(text), user(lined(7, number))]


def played(session: Session, turns: Sequence[Turn]) -> Iterator[tuple[Plan, CacheReport]]:
    """The session's plan and report after each turn; a turn that cannot fit is skipped, with the session as it was."""
    for turn in turns:
        session.add(*turn)
        before = session.cache
        try:
            yield session.plan(), session.cache
        except BudgetInfeasible as refusal:
            assert refusal.minimum > session.budget.window_tokens
            assert session.cache is before


def sent(plan: Plan) -> list[str]:
    return [json.dumps(message) for message in plan.to_messages()]


def common(one: Sequence[object], other: Sequence[object]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


COUNTERS = {"words": (WhitespaceCounter, 1, 2), "bytes": (tiny_counter, 6, 10)}
"""A counter, tokens to a word, and tokens that open the answer at the end of a prompt."""
WINDOWS = st.integers(60, 420)


@pytest.mark.parametrize("kind", COUNTERS)
@settings(max_examples=80)
@given(turns=growing(), window=WINDOWS, expandable=st.booleans(), expected=st.sampled_from([None, 3.0, 100.0]))
def test_every_prompt_fits_and_begins_as_the_one_before_unless_the_report_says_why(
    kind: str, turns: list[Turn], window: int, expandable: bool, expected: float | None
) -> None:
    make, scale, opening = COUNTERS[kind]
    counter = make()
    session = Session(
        budget=Budget(window * scale + 9, 9), counter=counter, expandable=expandable, expected_turns=expected
    )
    previous: Plan | None = None
    for plan, cache in played(session, turns):
        assert plan.prompt_tokens == counter.render(plan.messages, tools=plan.tools).tokens <= window * scale
        assert plan.budget == session.budget
        assert sum(tokens for _, tokens in plan.charges()) == plan.prompt_tokens
        assert openai_problems(plan.to_messages()) == ()
        assert cache.prefill_tokens == plan.prompt_tokens - cache.reused_tokens
        if previous is not None:
            assert_true(cache, previous, plan, opening)
        previous = plan


def assert_true(cache: CacheReport, before: Plan, after: Plan, opening: int) -> None:
    assert before.ids is not None
    assert after.ids is not None
    assert cache.reused_tokens == common(before.ids, after.ids)
    assert cache.reuse == cache.reused_tokens / len(before.ids)
    if cache.broke_at is None:
        assert sent(after)[: len(before.messages)] == sent(before)
        assert after.tools == before.tools
        assert cache.reused_tokens >= len(before.ids) - opening
        assert "chat template" not in cache.reason
    elif cache.broke_at == TOOLS:
        assert after.tools != before.tools
    else:
        same = common(sent(before), sent(after))
        assert before.messages[same].owner == cache.broke_at
        assert "compacted" in cache.reason or repr(cache.broke_at) in cache.reason


@settings(max_examples=30)
@given(turns=growing(), window=WINDOWS)
def test_the_same_turns_give_the_same_prompts_and_reports(turns: list[Turn], window: int) -> None:
    runs = [
        [
            (plan.ids, cache)
            for plan, cache in played(Session(budget=Budget(window), counter=WhitespaceCounter()), turns)
        ]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


@settings(max_examples=50)
@given(turns=growing(), window=WINDOWS)
def test_nothing_is_lost_every_ref_gives_the_original_back(turns: list[Turn], window: int) -> None:
    session = Session(budget=Budget(window), counter=WhitespaceCounter())
    for plan, _ in played(session, turns):
        for decision in plan.decisions:
            if decision.sent is not decision.part:
                assert session.expand(decision.part.id) == source_text(decision.part)
            if decision.handle is not None:
                assert session.expand(decision.handle.ref) == plan.expand(decision.handle)
        shown = re.findall(r'expand\(\\*"([^"\\]+)', json.dumps(plan.to_messages()))
        assert all(session.expand(ref) == source_text(plan.decision(ref).part) for ref in shown)
        assert (not shown) or plan.tools, "who sees a ref has the tool"


@settings(max_examples=30)
@given(turns=growing(), window=WINDOWS)
def test_planning_again_without_a_new_message_changes_nothing(turns: list[Turn], window: int) -> None:
    session = Session(budget=Budget(window), counter=WhitespaceCounter())
    for plan, cache in played(session, turns):
        again = session.plan()
        assert again.ids == plan.ids
        assert session.cache.compactions == cache.compactions
        assert session.cache.reuse == 1.0


def agent(rounds: int, size: int = 60) -> list[Turn]:
    start = [system(), user("Find the leak in pool.py")]
    return [start, *[file_round(f"c{i}", lined(size, i)) for i in range(rounds)]]


def test_two_turns_just_over_the_trigger_make_one_compaction_not_two() -> None:
    reports = [c for _, c in played(Session(budget=Budget(380), counter=WhitespaceCounter(), target=0.7), agent(6))]
    assert [c.compactions for c in reports] == [0, 0, 0, 0, 0, 1, 1]
    assert reports[-1].broke_at is None


def test_a_compaction_goes_down_to_the_target_and_no_lower_than_it_has_to() -> None:
    session = Session(budget=Budget(380), counter=WhitespaceCounter(), target=0.5, expandable=False)
    plans = [plan for plan, _ in played(session, agent(5))]
    assert 0.9 * 190 <= plans[-1].prompt_tokens <= 190
    assert "would take 395" in session.cache.reason
    assert session.cache.pays_after_turns is not None


def test_where_what_must_be_in_is_above_the_target_the_whole_limit_is_used() -> None:
    session = Session(budget=Budget(100), counter=WhitespaceCounter(), target=0.5, compressors=())
    session.add(user("so " * 40), answer("then " * 60), user("and " * 70))
    assert 50 < session.plan().prompt_tokens <= 100


def test_a_second_compaction_keeps_the_beginning_that_the_first_made() -> None:
    session = Session(budget=Budget(380), counter=WhitespaceCounter())
    reports = [cache for _, cache in played(session, agent(12))]
    second = next(cache for cache in reports if cache.compactions == 2)
    assert second.broke_at not in (None, TOOLS)
    assert second.reuse > 0.2
    assert "compacted" in second.reason


def test_what_was_dropped_stays_dropped_until_the_next_compaction() -> None:
    session = Session(budget=Budget(380), counter=WhitespaceCounter())
    before: dict[str, str] = {}
    for plan, cache in played(session, agent(9)):
        levels = {decision.part.id: decision.level for decision in plan.decisions}
        if cache.broke_at is None:
            assert {name: levels[name] for name in before} == before
        before = levels
    assert "dropped" in before.values()


def test_it_compacts_though_it_need_not_only_where_enough_turns_are_expected() -> None:
    def compactions(expected: float | None, prices: CachePrices) -> int:
        session = Session(
            budget=Budget(380), counter=WhitespaceCounter(), target=0.6, expected_turns=expected, prices=prices
        )
        *_, (_, cache) = played(session, agent(4))
        return cache.compactions

    assert compactions(None, CachePrices()) == 0
    assert compactions(0.5, CachePrices()) == 0
    assert compactions(1_000, CachePrices()) >= 1
    assert compactions(1_000, CachePrices(read=0.0, write=1.0)) == 0


def test_a_voluntary_compaction_says_after_how_many_turns_it_pays() -> None:
    session = Session(budget=Budget(380), counter=WhitespaceCounter(), target=0.6, expected_turns=1_000)
    *_, (_, cache) = played(session, agent(4))
    paying = cache.pays_after_turns
    assert paying is not None
    assert paying < 1_000
    assert "expected turns" in cache.reason
    assert f"pays after {paying:,.1f} turns" in str(cache)


def test_a_question_that_was_dropped_stays_out_when_its_answer_joins_it() -> None:
    """Two user messages in a row: the first is dropped while the second is pinned; then the answer makes them one."""
    session = Session(budget=Budget(60), counter=WhitespaceCounter(), compressors=())
    session.add(user("task"), answer("yes"), user("long " * 45), user("now " * 10))
    assert not session.plan().decision("m2").kept
    session.add(answer("done"), user("next"))
    plan = session.plan()
    assert session.cache.broke_at is None
    assert not plan.decision("m2").kept
    assert plan.decision("m3").kept
    assert plan.decision("m4").kept


def test_a_result_that_comes_late_changes_its_call_and_the_report_says_so() -> None:
    session = Session(budget=Budget(500), counter=WhitespaceCounter())
    session.add(user("go"), calls(("a", "{}"), ("b", "{}")), result("a", "first"), user("and?"))
    session.plan()
    session.add(result("b", "second"))
    assert len(session.plan().messages) == 5
    assert session.cache.broke_at == "m1"
    assert "later messages changed it" in session.cache.reason


def test_a_tool_round_of_which_something_was_dropped_is_never_sent_in_part() -> None:
    session = Session(budget=Budget(60), counter=WhitespaceCounter(), compressors=())
    session.add(user("task"), calls(("a", "{}"), ("b", "{}")), result("a", lined(50)), user("and?"))
    assert not session.plan().decision("m1").kept
    session.add(result("b", "second"))
    plan = session.plan()
    assert openai_problems(plan.to_messages()) == ()
    assert len({plan.decision(name).kept for name in ("m1", "m2", "m4")}) == 1


class Forgetful(WhitespaceCounter):
    """A template that writes answers otherwise once the user has gone on."""

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
        shown = [
            PromptMessage(one.role, (replace(one.segments[0], text="(said)"),), owner=one.owner)
            if one.role == "assistant" and i < last
            else one
            for i, one in enumerate(messages)
        ]
        return super().render(shown, tools=tools)


def test_a_template_that_writes_old_messages_otherwise_is_named() -> None:
    session = Session(budget=Budget(500), counter=Forgetful())
    session.add(user("a b"), answer("c d e"), user("f"))
    session.plan()
    session.add(answer("g h i"), user("j"))
    session.plan()
    assert "everything is sent as before" in session.cache.reason
    session.add(answer("k"))
    session.plan()
    session.add(user("l"))
    session.plan()
    assert session.cache.broke_at is None
    assert "chat template" in session.cache.reason


class Estimated(WhitespaceCounter):
    """Knows how many tokens, not which."""

    exact = False

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        return replace(super().render(messages, tools=tools), ids=None)


@settings(max_examples=30)
@given(turns=growing(), window=WINDOWS)
def test_without_ids_the_messages_in_common_are_counted(turns: list[Turn], window: int) -> None:
    session, exact = (Session(budget=Budget(window), counter=counter()) for counter in (Estimated, WhitespaceCounter))
    for (_, cache), (plan, known) in zip(played(session, turns), played(exact, turns), strict=True):
        assert cache.broke_at == known.broke_at
        assert cache.reason == known.reason
        assert cache.reused_tokens <= min(plan.prompt_tokens, known.reused_tokens + 2), "the opening of the answer"
        if cache.broke_at is None:
            assert cache.reused_tokens >= known.reused_tokens


def test_messages_are_copied_and_what_is_no_message_is_refused_with_nothing_added() -> None:
    session = Session(budget=Budget(100), counter=WhitespaceCounter())
    message = user("one")
    session.add(message)
    message["content"] = "two"
    session.messages[0]["content"] = "three"  # type: ignore[index]
    with pytest.raises(PartError, match="message 2"):
        session.add(user("ok"), {"role": "nobody"})
    assert session.messages == (user("one"),)
    assert session.plan().to_messages() == [user("one")]


def test_an_error_leaves_the_session_as_it_was() -> None:
    class Broken(MemoryOriginals):
        def put(self, key: str, text: str) -> None:
            raise StoreError("the disk is full")

    session = Session(budget=Budget(380), counter=WhitespaceCounter(), store=Broken())
    *_, (plan, cache) = played(session, agent(4))
    session.add(*file_round("last", lined(60)))
    with pytest.raises(StoreError, match="full"):
        session.plan()
    assert session.cache is cache
    session.budget = Budget(1_000)
    again = session.plan()
    assert again.ids is not None
    assert plan.ids is not None
    assert session.cache.reused_tokens == common(plan.ids, again.ids) > 300


def test_groups_that_are_worth_nothing_stay_out() -> None:
    class OnlyTheLast:
        def values(self, groups: Sequence[Group]) -> Sequence[float]:
            return [0.0] * (len(groups) - 1) + [1.0]

    session = Session(budget=Budget(200), counter=WhitespaceCounter(), utility=OnlyTheLast())
    session.add(user("a"), answer("b"), user("c"))
    assert session.plan().to_messages() == [user("c")]


def test_a_new_session_says_that_nothing_was_planned_and_refuses_to_plan_nothing() -> None:
    session = Session(budget=Budget(100), counter=WhitespaceCounter(), session_id="s")
    assert session.cache == CacheReport()
    assert "nothing was planned yet" in repr(session)
    with pytest.raises(PartError, match="at least one part"):
        session.plan()


@pytest.mark.parametrize(
    "wrong", [{"target": 0.0}, {"target": 1.5}, {"expected_turns": -1}, {"session_id": ""}, {"session_id": "a/b"}]
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        Session(budget=Budget(100), counter=WhitespaceCounter(), **wrong)


def test_floors_shrink_with_the_target() -> None:
    budget = Budget(380, floors={"tool_result": 350})
    session = Session(budget=budget, counter=WhitespaceCounter(), target=0.5)
    *_, (plan, cache) = played(session, agent(6))
    assert cache.compactions
    assert plan.budget == budget
