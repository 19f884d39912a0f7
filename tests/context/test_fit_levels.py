"""`fit` with levels: what is required stays in at some level, and every contract holds with reduced parts too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxkit
from ctxkit import Budget, BudgetInfeasible, Part, Plan, fit, passage, question, system, turn
from ctxkit.context import Level, LevelRequest
from ctxkit.context.expand import EXPAND
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.level import Handle, source_text
from ctxkit.testing import WhitespaceCounter


@dataclass
class FirstWords:
    """The first words of each part; remembers what it was asked for."""

    shares: tuple[float, ...] = (0.5, 0.25, 0.0)

    def __post_init__(self) -> None:
        self.asked: list[int] = []

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        self.asked.append(group.index)
        total = sum(len(part.content.split()) for part in group.parts)
        for share in self.shares:
            level = self._level(group, int(total * share), request)
            if level is not None:
                yield level

    def _level(self, group: Group, words: int, request: LevelRequest) -> Level | None:
        if words < 0:
            return None
        parts, total, left = [], 0, words
        for part in group.parts:
            split = part.content.split()
            total += len(split)
            if part.verbatim or len(split) < 3:
                parts.append(part)
                continue
            kept, left = split[: max(left, 0)], left - len(split)
            note = f'[cut:expand("{part.id}")]' if request.expandable else "[cut]"
            parts.append(part.rewritten(" ".join([*kept, note])) if len(kept) + 1 < len(split) else part)
        if all(a is b for a, b in zip(parts, group.parts, strict=True)):
            return None
        handles = tuple(Handle.of_whole(a) for a, b in zip(group.parts, parts, strict=True) if a is not b)
        utility = 0.05 + 0.9 * math.sqrt(min(words, total) / max(total, 1))
        return Level(
            f"first-{words}",
            tuple(parts),
            min(utility, 0.99),
            "first words",
            handles,
            resize=lambda tokens: self._level(group, tokens - 3 * len(group.parts), request),
        )


def counter() -> WhitespaceCounter:
    return WhitespaceCounter(overhead_per_message=0, prompt_overhead=0)


def words(n: int, word: str = "word") -> str:
    return " ".join(f"{word}{i}" for i in range(n))


def tool_round(call_id: str, result: str, **fields: object) -> list[Part]:
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [ctxkit.tool_call([call], **fields), ctxkit.tool_result(call_id, result, **fields)]  # type: ignore[arg-type]


def test_a_required_round_is_reduced_rather_than_dropped_and_its_pair_is_kept() -> None:
    parts = [question("the task"), *tool_round("a", words(20_000), required=True)]
    plan = fit(parts, budget=Budget(500), counter=counter(), compressors=[FirstWords()])
    assert [decision.kept for decision in plan.decisions] == [True, True, True]
    assert plan.decision("tool_result-1").level.startswith("first-")
    assert 0.95 * 500 <= plan.prompt_tokens <= 500, "what is left over goes to the level that has a size to choose"
    assert plan.minimum < 30


def test_what_is_required_and_cannot_be_reduced_is_refused_with_the_minimum() -> None:
    parts = [question("the task"), *tool_round("a", words(100), required=True)]
    with pytest.raises(BudgetInfeasible) as refusal:
        fit(parts, budget=Budget(50), counter=counter())
    assert fit(parts, budget=Budget(refusal.value.minimum), counter=counter()).minimum == refusal.value.minimum


def test_levels_are_made_only_where_something_does_not_fit_whole() -> None:
    compressor = FirstWords()
    fit([question("q"), passage(words(100))], budget=Budget(500), counter=counter(), compressors=[compressor])
    assert compressor.asked == []


def test_levels_are_not_made_of_what_is_pinned_or_hopeless() -> None:
    compressor = FirstWords()
    parts = [
        system(words(100)),
        *[passage(words(60, f"w{i}-"), relevance=1.0) for i in range(6)],
        passage(words(400), relevance=1e-6),
    ]
    fit(parts, budget=Budget(222), counter=counter(), compressors=[compressor])
    assert sorted(compressor.asked) == [1, 2, 3, 4, 5, 6]


def test_a_group_that_must_not_be_edited_is_whole_or_not_in() -> None:
    parts = [question("q"), turn("assistant", words(80), verbatim=True), turn("user", words(80))]
    plan = fit(parts, budget=Budget(60), counter=counter(), compressors=[FirstWords()])
    assert plan.decision("turn-1").level == "dropped"
    assert plan.decision("turn-2").level.startswith("first-")


@pytest.mark.parametrize("window", [100, 150, 400])
def test_the_expand_tool_is_offered_exactly_when_a_handle_is_visible(window: int) -> None:
    parts = [question("q"), *tool_round("a", words(200), required=True)]
    plan = fit(parts, budget=Budget(window), counter=counter(), compressors=[FirstWords()], expandable=True)
    visible = any("expand(" in message.content for message in plan.messages)
    assert (EXPAND in plan.tools) == visible == (window < 400)
    assert plan.prompt_tokens == counter().render(plan.messages, tools=plan.tools).tokens <= window
    if visible:
        assert plan.expand("tool_result-1") == words(200)


def test_an_answer_never_comes_before_the_first_message_of_the_user() -> None:
    parts = [
        system("rules"),
        turn("user", words(40), relevance=0.1),
        turn("assistant", "short and good"),
        question("and now?"),
    ]
    plan = fit(parts, budget=Budget(20), counter=counter())
    assert [message.role for message in plan.messages] == ["system", "user"]


def test_newer_turns_win_over_older_ones_of_the_same_size() -> None:
    parts = [turn("user", words(10, f"t{i}-"), id=f"t{i}") for i in range(20)]
    plan = fit([*parts, question("q")], budget=Budget(55), counter=counter())
    assert [decision.part.id for decision in plan.kept] == [f"t{i}" for i in range(15, 20)] + ["question-1"]


def test_why_not_names_what_would_have_to_go_and_a_window_that_is_true() -> None:
    parts = [question("q"), *[passage(words(20, f"w{i}-"), id=f"p{i}", relevance=1 - i / 10) for i in range(5)]]
    plan = fit(parts, budget=Budget(50), counter=counter())
    assert [decision.part.id for decision in plan.dropped] == ["p2", "p3", "p4"]
    assert "to admit it, p1 would have to go" in plan.why_not("p3")
    window = int(plan.why_not("p3").rpartition("window of ")[2].split()[0])
    assert plan.replan(window_tokens=window).decision("p3").kept
    assert not plan.replan(window_tokens=window - 1).decision("p3").kept
    assert plan.with_more(21).entered == ("p2",)


TEXT = st.integers(0, 40).map(words)


@st.composite
def conversations(draw: st.DrawFn) -> list[Part]:
    parts: list[Part] = [system("You help.")] if draw(st.booleans()) else []
    for n in range(draw(st.integers(0, 6))):
        fields = {"required": draw(st.integers(0, 4)) == 0, "verbatim": draw(st.integers(0, 4)) == 0}
        fields["relevance"] = draw(st.sampled_from([0.2, 0.5, 1.0]))
        if draw(st.booleans()):
            parts += tool_round(f"c{n}", draw(TEXT), **fields)
        else:
            parts.append(turn(draw(st.sampled_from(["user", "assistant"])), draw(TEXT), **fields))
    return [*parts, question(draw(TEXT))]


def check(plan: Plan, parts: list[Part], budget: Budget) -> None:
    again = counter().render(plan.messages, tools=plan.tools)
    assert plan.prompt_tokens == again.tokens <= budget.prompt_tokens
    assert sum(tokens for _, tokens in plan.charges()) == plan.prompt_tokens
    for decision in plan.decisions:
        if decision.part.pinned:
            assert decision.level == "full"
        if decision.part.required:
            assert decision.kept
        if decision.part.verbatim:
            assert decision.level in ("full", "dropped")
        if decision.level == "full":
            assert decision.sent == decision.part
        else:
            assert decision.handle is not None
            assert plan.expand(decision.handle) == source_text(decision.part)
    for group in grouped(identified(parts)):
        assert len({plan.decision(part.id).kept for part in group.parts}) == 1
    assert 0 <= plan.gap <= 1


@given(conversations(), st.integers(0, 20), st.integers(1, 200), st.booleans())
@settings(max_examples=max(1_000, settings.default.max_examples))
def test_every_contract_holds_with_levels_and_the_minimum_is_exact(
    parts: list[Part], reserve: int, room: int, expandable: bool
) -> None:
    def plan_for(budget: Budget) -> Plan:
        return fit(parts, budget=budget, counter=counter(), compressors=[FirstWords()], expandable=expandable)

    budget = Budget(room + reserve, reserve)
    try:
        plan = plan_for(budget)
    except BudgetInfeasible as refusal:
        assert refusal.minimum > budget.window_tokens
        budget = replace(budget, window_tokens=refusal.minimum)
        plan = plan_for(budget)
        assert plan.minimum == refusal.minimum
    check(plan, parts, budget)
    assert plan.minimum <= budget.window_tokens


@given(conversations(), st.integers(60, 200))
@settings(max_examples=50)
def test_replanning_gives_what_planning_anew_gives(parts: list[Part], window: int) -> None:
    def plan_for(window: int) -> Plan:
        return fit(parts, budget=Budget(window), counter=counter(), compressors=[FirstWords()])

    try:
        plan, wanted = plan_for(400), plan_for(window)
    except BudgetInfeasible:
        return
    assert plan.replan(window_tokens=window).messages == wanted.messages


def test_diff_names_what_is_cut_otherwise() -> None:
    parts = [question("q"), *tool_round("a", words(900), required=True)]
    small, large = (
        fit(parts, budget=Budget(window), counter=counter(), compressors=[FirstWords(shares=(0.01,))])
        for window in (200, 400)
    )
    assert large.diff(small).changed == ("tool_result-1",)
    assert not large.diff(large).changed
