"""The contracts of `fit`, as properties over generated conversations and budgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxkit
from ctxkit import Budget, BudgetInfeasible, Part, Plan, fit
from ctxkit.context.group import grouped, identified
from ctxkit.context.level import source_text
from ctxkit.testing import WhitespaceCounter

# Words with and without white space at the seams: joined segments then cost less than their sum.
TEXT = st.text(alphabet="ab é\n 天", max_size=40)
WEIGHTS = st.floats(0.1, 4.0)
RELEVANCES = st.one_of(st.just(0.0), st.floats(1e-6, 1.0))


@st.composite
def simple_part(draw: st.DrawFn) -> Part:
    kind = draw(st.sampled_from(["system", "instruction", "memory", "passage", "turn", "question"]))
    role = draw(st.sampled_from(["user", "assistant"])) if kind == "turn" else ""
    return Part(
        kind,
        draw(TEXT),
        role=role,
        title=draw(st.sampled_from(["", "Title of it"])) if kind == "passage" else "",
        priority=draw(WEIGHTS),
        relevance=draw(RELEVANCES),
        pinned=draw(st.booleans()) if kind != "passage" else draw(st.integers(0, 5)) == 0,
        group=draw(st.sampled_from([None, None, None, "g1", "g2"])),
    )


@st.composite
def tool_round(draw: st.DrawFn) -> list[Part]:
    names = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True))
    calls = [{"id": n, "type": "function", "function": {"name": "f", "arguments": draw(TEXT)}} for n in names]
    relevance = draw(RELEVANCES)
    call = ctxkit.tool_call(calls, draw(TEXT), relevance=relevance, pinned=draw(st.integers(0, 4)) == 0)
    results = [ctxkit.tool_result(n, draw(TEXT), relevance=relevance) for n in draw(st.permutations(names))]
    between = draw(st.lists(simple_part(), max_size=1))
    return [call, *results[:1], *between, *results[1:]]


@st.composite
def conversation(draw: st.DrawFn) -> list[Part]:
    pieces = draw(st.lists(st.one_of(simple_part().map(lambda part: [part]), tool_round()), min_size=1, max_size=10))
    return [part for piece in pieces for part in piece]


LIMITS = st.dictionaries(st.sampled_from(["passage", "turn", "tool_result", "memory"]), st.integers(0, 60), max_size=2)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    reserve = draw(st.integers(0, 30))
    window = reserve + draw(st.integers(1, 150))
    return Budget(window, reserve, caps=draw(LIMITS))


def group_has_capped_kind(part: Part, parts: list[Part], budget: Budget) -> bool:
    given = identified(parts)
    group = next(group for group in grouped(given) if given[parts.index(part)] in group.parts)
    return any(member.kind in budget.caps for member in group.parts)


def check(plan: Plan, parts: list[Part], budget: Budget, counter: WhitespaceCounter) -> None:
    """Every contract that a plan must keep."""
    again = counter.render(plan.messages)
    assert plan.prompt_tokens + budget.reserve_tokens <= budget.window_tokens
    assert plan.ids is not None
    assert len(plan.ids) == plan.prompt_tokens == again.tokens
    assert plan.ids == again.ids
    assert sum(tokens for _, tokens in plan.charges()) == plan.prompt_tokens
    assert [decision.part for decision in plan.decisions] == list(identified(parts))
    kept = [decision.part for decision in plan.kept]
    owners = [segment.owner for message in plan.messages for segment in message.segments]
    assert owners == [part.id for part in kept], "kept parts are sent in the order given"
    assert all(decision.kept for decision in plan.decisions if decision.part.pinned)
    sent = {segment.owner: segment.text for message in plan.messages for segment in message.segments}
    assert all(sent[part.id].endswith(part.content) for part in kept), "what is kept whole is kept verbatim"
    for group in grouped(identified(parts)):
        assert len({plan.decision(part.id).kept for part in group.parts}) == 1, "a group lives or dies together"
    for kind, cap in budget.caps.items():
        optional = [d for d in plan.kept if d.part.kind == kind and d.reason.startswith("value")]
        assert not optional or sum(d.tokens for d in plan.kept if d.part.kind == kind) <= cap
    assert 0 <= plan.gap <= 1
    for decision in plan.dropped:
        assert decision.handle is not None
        assert plan.expand(decision.handle) == source_text(decision.part)


@given(conversation(), budgets())
@settings(max_examples=max(1_000, settings.default.max_examples))
def test_a_plan_keeps_every_contract_or_is_refused_with_the_exact_minimum(parts: list[Part], budget: Budget) -> None:
    counter = WhitespaceCounter()
    try:
        plan = fit(parts, budget=budget, counter=counter)
    except BudgetInfeasible as refusal:
        assert refusal.minimum > budget.window_tokens
        roomy = replace(budget, window_tokens=refusal.minimum)
        plan = fit(parts, budget=roomy, counter=counter)
        assert plan.minimum == refusal.minimum
        check(plan, parts, roomy, counter)
        return
    except ctxkit.errors.PartError:
        assert not any(part.pinned for part in parts)
        worthy = [part for part in parts if part.relevance]
        assert all(group_has_capped_kind(part, parts, budget) for part in worthy), "only worthless parts are refused"
        return
    check(plan, parts, budget, counter)
    assert plan.minimum <= budget.window_tokens


@given(conversation(), budgets())
@settings(max_examples=50)
def test_the_same_input_gives_the_same_plan(parts: list[Part], budget: Budget) -> None:
    def attempt() -> Plan | str:
        try:
            return fit(parts, budget=budget, counter=WhitespaceCounter())
        except ctxkit.CtxkitError as error:
            return str(error)

    assert attempt() == attempt()


@given(st.lists(simple_part(), min_size=1, max_size=8))
@settings(max_examples=50)
def test_with_room_for_everything_everything_of_worth_is_in(parts: list[Part]) -> None:
    parts = [replace(part, relevance=max(part.relevance, 0.01), group=None) for part in parts]
    plan = fit(parts, budget=Budget(100_000), counter=WhitespaceCounter())
    assert not plan.dropped
    assert plan.gap == 0


@pytest.mark.parametrize("window", range(5, 200, 5))
def test_tool_rounds_stay_whole_at_every_budget(window: int) -> None:
    calls = [{"id": n, "type": "function", "function": {"name": "f", "arguments": "x " * 10}} for n in "ab"]
    parts = [
        ctxkit.turn("user", "first " * 5),
        ctxkit.tool_call(calls),
        ctxkit.tool_result("b", "result b " * 6),
        ctxkit.turn("user", "in between"),
        ctxkit.tool_result("a", "result a " * 6),
        ctxkit.tool_call([{**calls[0], "id": "b"}]),
        ctxkit.tool_result("b", "again " * 4),
    ]
    try:
        plan = fit(parts, budget=Budget(window), counter=WhitespaceCounter())
    except BudgetInfeasible:
        return
    open_calls: list[str] = []
    for message in plan.to_messages():
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
        open_calls.extend(call["id"] for call in message.get("tool_calls", ()))
    assert open_calls == []
