"""Diff history: exact, never longer than what it stands for, and never in a plan without its base."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit import Budget, BudgetInfeasible, Part, Plan, fit, passage, question, tool_call, tool_result, turn
from ctxkit.compression import StubCompressor
from ctxkit.compression.diff_history import DiffHistory, DiffHistoryCompressor, decoded, encoded, restored
from ctxkit.context import JointCompressor, Level, LevelRequest
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.level import source_text
from ctxkit.session import Session
from ctxkit.testing import WhitespaceCounter

COUNTER = WhitespaceCounter()
LINES = st.sampled_from(
    ["", "a b", "c", "[whole]", "[changes since the last one]", "[no changes since x]", "é\r", "@@ -1 +1 @@"]
)
OBSERVATIONS = st.lists(st.lists(LINES, max_size=6).map("\n".join), max_size=12)


# --- one stream, without `fit` ------------------------------------------------------------------------------------


@given(OBSERVATIONS, st.integers(1, 5))
def test_a_history_gives_every_observation_back(observations: list[str], rekey_every: int) -> None:
    sender, reader = DiffHistory(rekey_every), DiffHistory(rekey_every)
    for observation in observations:
        message = sender.encode(observation)
        assert reader.decode(message) == observation
        assert len(message) <= len(observation) or message == "[whole]\n" + observation


def test_one_of_so_many_is_whole() -> None:
    sender, pages = DiffHistory(rekey_every=3), [f"{n}\n" + "a line of the page\n" * 9 for n in range(7)]
    assert [sender.encode(page) == page for page in pages] == [True, False, False] * 2 + [True]


def test_a_reader_that_missed_the_first_message_is_told() -> None:
    sender, page = DiffHistory(), "a line of the page\n" * 9
    sender.encode(page)
    with pytest.raises(ValueError, match="not known"):
        DiffHistory().decode(sender.encode(page + "b"))


@given(st.lists(LINES, max_size=6).map("\n".join), st.lists(LINES, max_size=6).map("\n".join))
def test_every_way_to_write_changes_can_be_read(base: str, text: str) -> None:
    for content in encoded(text, base, "m1"):
        assert decoded(content, {"m1": base}) == text


@pytest.mark.parametrize(
    "options", [{"rekey_every": 0}, {"bases": 0}, {"bases": 4}, {"utility": 0.0}, {"utility": 1.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DiffHistoryCompressor(**options)  # type: ignore[arg-type]


# --- the levels ---------------------------------------------------------------------------------------------------


def page(step: int, lines: int = 20) -> str:
    """A page of which one line changes with each step."""
    return "".join(
        f"line {n} was read at step {max(s for s in (0, *range(step + 1)) if s % lines in (0, n))}\n"
        for n in range(lines)
    )


def look(
    step: int, text: str, tool: str = "read", arguments: str = '{"path": "a", "limit": 9}', **fields: object
) -> list[Part]:
    function = {"name": tool, "arguments": arguments}
    call = tool_call([{"id": f"c{step}", "type": "function", "function": function}])
    return [call, replace(tool_result(f"c{step}", text), **fields)]  # type: ignore[arg-type]


def levels_of(parts: Sequence[Part], compressor: DiffHistoryCompressor | None = None) -> list[list[Level]]:
    groups = grouped(identified(parts))
    request = LevelRequest("", COUNTER, groups=groups)
    return [list(levels) for levels in (compressor or DiffHistoryCompressor()).joint_levels(groups, request)]


def bases_of(parts: Sequence[Part], compressor: DiffHistoryCompressor | None = None) -> list[list[str]]:
    return [[need.base_id for level in levels for need in level.needs] for levels in levels_of(parts, compressor)]


def test_a_later_observation_can_be_told_by_several_earlier_ones() -> None:
    parts = [part for step in range(5) for part in look(step, page(step))]
    first, second, third, fourth = (f"tool_result-{n}" for n in range(1, 5))
    assert bases_of(parts) == [[], [first], [second, first], [third, second, first], [fourth, third, first]]
    assert bases_of(parts, DiffHistoryCompressor(bases=1)) == [[], [first], [second], [third], [fourth]]
    assert bases_of(parts, DiffHistoryCompressor(rekey_every=2)) == [[], [first], [], [third], []]


def test_a_level_names_its_base_and_gives_the_original_back() -> None:
    (level,) = levels_of([*look(0, page(0)), *look(1, page(1))])[1]
    call, result = level.parts
    assert result.content.startswith("[changes since tool_result-1]\n@@ -2 +2 @@\n-line 1 was")
    assert (call.content, call.tool_call_id) == ("", None)
    assert result.tool_call_id == "c1"
    assert [handle.part_id for handle in level.handles] == ["tool_result-2"]
    assert decoded(result.content, {"tool_result-1": page(0)}) == page(1)


def test_json_is_told_by_its_structure_where_that_is_shorter() -> None:
    rows = [{"id": n, "state": "open", "note": "as it was before"} for n in range(9)]
    later = [*rows[:4], {**rows[4], "state": "late"}, *rows[5:]]
    (level,) = levels_of([*look(0, json.dumps(rows)), *look(1, json.dumps(later))])[1]
    assert level.parts[1].content == '[JSON changes since tool_result-1]\n{"set":{"/4/state":"late"}}'


def test_what_did_not_change_is_one_line() -> None:
    (level,) = levels_of([*look(0, page(0)), *look(1, page(0))])[1]
    assert level.parts[1].content == "[no changes since tool_result-1]"


def test_a_source_is_a_name_or_a_call_whatever_its_json_looks_like() -> None:
    same = [*look(0, page(0)), *look(1, page(1), arguments='{"limit":9,"path":"a"}')]
    assert bases_of(same)[1] == ["tool_result-1"]
    for other in (look(1, page(1), arguments='{"path": "b", "limit": 9}'), look(1, page(1), tool="list")):
        assert bases_of([*look(0, page(0)), *other]) == [[], []]
    named = [passage(page(0), source="a.txt"), *look(1, page(1), source="a.txt"), passage(page(2), source="b.txt")]
    assert bases_of(named) == [[], ["passage-1"], []]
    assert bases_of([passage(page(0)), passage(page(1))]) == [[], []]


def test_what_cannot_be_told_shorter_or_must_stay_has_no_level() -> None:
    changed = "\n".join(f"quite another line {n}" for n in range(20))
    assert bases_of([*look(0, page(0)), *look(1, changed)]) == [[], []]
    assert bases_of([*look(0, page(0)), *look(1, page(1), verbatim=True)]) == [[], []]
    assert bases_of([*look(0, "[whole]\n" + page(0)), *look(1, "[whole]\n" + page(1))]) == [[], []]
    assert bases_of([*look(0, ""), *look(1, "")]) == [[], []]


def test_results_of_one_round_are_told_together() -> None:
    def both(step: int) -> list[Part]:
        calls = [
            {"id": name, "type": "function", "function": {"name": "read", "arguments": json.dumps({"path": name})}}
            for name in ("a", "b")
        ]
        return [tool_call(calls), tool_result("b", "b " + page(step)), tool_result("a", "a " + page(step))]

    (level,) = levels_of([*both(0), *both(1)])[1]
    assert [(need.part_id, need.base_id) for need in level.needs] == [
        ("tool_result-3", "tool_result-1"),
        ("tool_result-4", "tool_result-2"),
    ]


@given(
    st.lists(
        st.lists(st.sampled_from(["a b c", "d e", "f", "", "é é"]), min_size=1, max_size=9).map("\n".join), max_size=8
    )
)
def test_a_level_is_cheaper_than_the_whole_and_exact(texts: list[str]) -> None:
    parts = [part for step, text in enumerate(texts) for part in look(step, text)]
    originals = {part.id: part.content for part in identified(parts)}
    for group, levels in zip(grouped(identified(parts)), levels_of(parts), strict=True):
        for level in levels:
            assert COUNTER.count(level.parts[1].content) < COUNTER.count(group.parts[1].content)
            assert decoded(level.parts[1].content, originals) == group.parts[1].content


@dataclass
class Batched:
    """Stubs, made for all groups of one asking; remembers how often it was asked."""

    askings: list[list[int]]

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        raise AssertionError("a joint compressor is asked for all groups at once")

    def joint_levels(self, groups: Sequence[Group], request: LevelRequest) -> Sequence[Iterable[Level]]:
        self.askings.append([group.index for group in groups])
        assert [group.index for group in request.groups] == list(range(len(request.groups)))
        return [list(StubCompressor().levels(group, request)) for group in groups]


def test_a_joint_compressor_is_asked_once_and_sees_all_groups() -> None:
    compressor = Batched([])
    parts = [*(passage(page(step)) for step in range(6)), question("What now?")]
    plan = fit(parts, budget=Budget(400, 10), counter=COUNTER, compressors=[compressor])
    assert isinstance(compressor, JointCompressor)
    assert not isinstance(StubCompressor(), JointCompressor)
    assert {decision.level for decision in plan.decisions} >= {"stub", "full"}
    assert len(compressor.askings) == 1
    plan.replan(window_tokens=300)
    asked = [index for asking in compressor.askings for index in asking]
    assert len(asked) == len(set(asked))


# --- plans --------------------------------------------------------------------------------------------------------


def read(plan: Plan) -> dict[str, str]:
    """What a reader of nothing but the prompt knows of the tool results in it."""
    return restored({message.owner: message.content for message in plan.messages if message.role == "tool"})


def check(plan: Plan) -> int:
    """A plan's contracts, and that whoever reads the prompt can read its differences; how many it has."""
    again = COUNTER.render(plan.messages, tools=plan.tools)
    assert plan.prompt_tokens <= plan.budget.prompt_tokens
    assert plan.ids == again.ids
    assert len(plan.ids or ()) == plan.prompt_tokens == sum(tokens for _, tokens in plan.charges())
    assert plan.value <= plan.bound + 1e-9
    told = read(plan)
    differences = [one for one in plan.kept if one.level == "diff"]
    for decision in differences:
        assert told[decision.part.id] == decision.part.content
        assert decision.tokens < decision.full_tokens
        assert decision.handle is not None
        assert plan.expand(decision.handle) == source_text(decision.part)
    for decision in plan.kept:
        if decision.part.pinned:
            assert decision.sent is decision.part
    return len(differences)


@st.composite
def streams(draw: st.DrawFn) -> list[Part]:
    """Looks at one or two sources between turns of the user, some of them pinned, required or worth little."""
    pages = [[f"{name} {n} of the page" for n in range(draw(st.integers(1, 12)))] for name in ("alpha", "beta")]
    parts: list[Part] = []
    for step in range(draw(st.integers(1, 9))):
        source = draw(st.sampled_from([0, 0, 0, 1]))
        for at in draw(st.lists(st.integers(0, len(pages[source]) - 1), max_size=3)):
            pages[source][at] = f"line {at} is new at step {step}"
        relevance = draw(st.sampled_from([1.0, 1.0, 0.4, 0.0]))
        fields = {"pinned": draw(st.integers(0, 7)) == 0, "required": draw(st.integers(0, 7)) == 0}
        call, result = look(step, "\n".join(pages[source]), arguments=f'{{"path": {source}}}', **fields)
        parts += [replace(call, relevance=relevance), replace(result, relevance=relevance)]
        if draw(st.integers(0, 3)) == 0:
            parts.append(turn("user", "And what is new now?"))
    return [turn("user", "Watch the pages."), *parts, question("What changed?")]


@st.composite
def settings_of_a_plan(draw: st.DrawFn) -> dict[str, object]:
    reserve = draw(st.integers(0, 9))
    caps = draw(st.dictionaries(st.sampled_from(["tool_result", "turn"]), st.integers(0, 200), max_size=1))
    history = DiffHistoryCompressor(draw(st.sampled_from([2, 3, 8])), draw(st.integers(1, 3)))
    compressors = draw(st.sampled_from([(history,), (history, StubCompressor()), (StubCompressor(), history)]))
    budget = Budget(reserve + draw(st.integers(30, 500)), reserve, caps=caps)
    return {"budget": budget, "compressors": compressors, "expandable": draw(st.booleans())}


@settings(max_examples=100)
@given(streams(), settings_of_a_plan(), st.integers(20, 500))
def test_no_plan_holds_a_difference_without_its_base(
    parts: list[Part], options: Mapping[str, object], window: int
) -> None:
    try:
        plan = fit(parts, counter=COUNTER, **options)  # type: ignore[arg-type]
    except BudgetInfeasible:
        return
    check(plan)
    again = fit(parts, counter=COUNTER, **options)  # type: ignore[arg-type]
    assert (again.messages, again.ids) == (plan.messages, plan.ids)
    for require in ((), (plan.decisions[-2].part.id,)):
        try:
            other = plan.replan(window_tokens=plan.budget.reserve_tokens + window, require=require)
        except BudgetInfeasible:
            continue
        check(other)
    assert check(plan.replan(window_tokens=plan.minimum)) >= 0


def test_a_chain_comes_in_where_only_a_part_of_it_would_fit_whole() -> None:
    parts = [part for step in range(8) for part in look(step, page(step))]
    parts = [turn("user", "Watch."), *parts, question("What changed?")]
    tokens = {
        name: fit(parts, budget=Budget(10_000, 10), counter=COUNTER).decision(name).tokens
        for name in ("tool_result-1",)
    }
    budget = Budget(tokens["tool_result-1"] * 3, 10)
    bare, plan = (fit(parts, budget=budget, counter=COUNTER, compressors=c) for c in ((), (DiffHistoryCompressor(),)))
    assert check(plan) >= 5
    assert plan.value > 1.5 * bare.value
    assert "diff history" in plan.why("tool_result-8")
    assert "whole" in plan.why_not("tool_result-8")
    assert plan.with_more(10_000).tokens > 0


def test_a_chain_starts_later_where_its_beginning_does_not_fit() -> None:
    """The first look is huge: the chain stands on the next one, against the second and not the first."""
    huge = "".join(f"a line {n} that is not there later\n" for n in range(200))
    parts = [*look(0, page(0) + huge), *(part for step in range(1, 6) for part in look(step, page(step)))]
    parts = [turn("user", "Watch."), *parts, question("What changed?")]
    plan = fit(parts, budget=Budget(400, 10), counter=COUNTER, compressors=[DiffHistoryCompressor()])
    assert check(plan) == 4
    assert plan.decision("tool_result-1").level == "dropped"
    assert plan.decision("tool_result-2").level == "full"


def test_a_pinned_look_is_a_base_and_never_a_difference() -> None:
    parts = [*look(0, page(0)), *look(1, page(1), pinned=True), *look(2, page(2)), question("What changed?")]
    plan = fit(parts, budget=Budget(260, 10), counter=COUNTER, compressors=[DiffHistoryCompressor()])
    assert check(plan) == 1
    assert plan.decision("tool_result-2").level == "full"
    assert (plan.decision("tool_result-3").sent or parts[0]).content.startswith("[changes since tool_result-2]")


def test_many_looks_are_asked_for_though_an_average_level_would_not_help() -> None:
    parts = [part for step in range(60) for part in look(step, page(step))]
    parts = [turn("user", "Watch."), *parts, question("What changed?")]
    plan = fit(parts, budget=Budget(2_500, 10), counter=COUNTER, compressors=[DiffHistoryCompressor()])
    assert check(plan) > 30


# --- sessions -----------------------------------------------------------------------------------------------------


def messages_of(step: int, text: str) -> list[dict[str, object]]:
    function = {"name": "read", "arguments": '{"path": "a"}'}
    call = {"id": f"c{step}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{step}", "content": text},
    ]


@pytest.mark.parametrize("seed", range(4))
def test_a_session_keeps_differences_with_their_bases(seed: int) -> None:
    rng = random.Random(seed)
    lines = [f"line {n} of the page" for n in range(15)]
    compressors = (DiffHistoryCompressor(), StubCompressor())
    session = Session(
        budget=Budget(rng.randint(350, 700), 20), counter=COUNTER, compressors=compressors, session_id="s"
    )
    session.add({"role": "user", "content": "Watch the page."})
    differences = reused = 0
    for step in range(16):
        lines[rng.randrange(len(lines))] = f"line new at step {step}"
        session.add(*messages_of(step, "\n".join(lines)))
        if rng.random() < 0.3:
            session.add({"role": "user", "content": "What changed?"})
        plan = session.plan()
        found = check(plan)
        differences += found
        reused += found > 0 and session.cache.broke_at is None
    assert differences > 5
    assert reused
