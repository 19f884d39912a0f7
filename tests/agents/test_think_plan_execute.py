"""ThinkPlanExecute: plans are read strictly, calls wait only for what they need, and what is missing is said."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits, Run, turn
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, CtxkitError, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit_agents import Job, Task
from ctxkit_agents.decomposed import PromptedModel, Recurse, SubTask
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.forms import Malformed
from ctxkit_agents.think_plan_execute import Call, ThinkPlanExecute, read_plan

needs_xgrammar = pytest.mark.skipif(find_spec("xgrammar") is None, reason="the extra `structured` is not installed")
SHORT = Sampling(max_tokens=40)
Tools = Mapping[str, Any]


def persona(query: str) -> str:
    """What is known about the user."""
    return "She likes lakes."


def trips(query: str) -> str:
    """Trips by what somebody likes."""
    return f"Trips for: {query}"


BOTH: Tools = {"persona": persona, "trips": trips}
PLAN = json.dumps([{"tool": "persona", "query": "likes"}, {"tool": "trips", "query": "who says: #1"}])


def talking(plan: str | Callable[[], str] = PLAN, **options: Any) -> ScriptedModel:
    """Thinks, plans so, and replies with what the tools gave."""

    def reply(request: Request) -> str:
        told, asked = request.messages[0].content, request.messages[-1].content
        if told.startswith("Say in two"):
            return "She wants a day out."
        if told.startswith("You plan"):
            return plan if isinstance(plan, str) else plan()
        return f"Well: {' / '.join(re.findall(r'^(?:She likes|Trips for).*$', asked, re.MULTILINE))}"

    return ScriptedModel(reply, **options)


def method(plan: str | Callable[[], str] = PLAN, tools: Tools = BOTH, **options: Any) -> ThinkPlanExecute:
    return ThinkPlanExecute(talking(plan), tools, sampling=SHORT, **options)


def test_thinks_plans_calls_and_replies() -> None:
    outcome = method().task("Where shall I go?").run()
    assert outcome.text == "Well: She likes lakes. / Trips for: who says: She likes lakes." and not outcome.degraded
    assert outcome.value.thought == "She wants a day out."
    assert [call.tool for call in outcome.value.calls] == ["persona", "trips"]
    assert [message.step for message in outcome.trace.messages] == ["think", "plan", "execute"]
    (root,) = outcome.trace.roots
    assert [child.name for child in root.children] == ["1-persona", "2-trips"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"tool": "a", "query": "x"}, {"tool": "b", "query": "of #1"}]',
        'Here it is:\n```json\n[{"tool": "a", "query": "x"},\n {"tool": "b", "query": "of #1"}]\n```',
        "1. a: x\n2. b: of #1",
        "1. a:x\n2. b : of #1",
        "My plan:\n1) [a] x\n2) [b] of #1\nThat is all.",
    ],
)
def test_a_plan_is_a_json_list_or_numbered_lines(text: str) -> None:
    assert read_plan(text) == [Call("a", "x"), Call("b", "of #1")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I would ask the persona.", "it holds no plan"),
        ('["persona"]', "call 1 must be"),
        ('[{"tool": "persona"}]', "call 1 must be"),
        ('[{"tool": "persona", "query": 3}]', "call 1 must be"),
        ("1. a: #1", "call 1 names #1, which is no earlier call"),
        ("1. a: #2\n2. b: x", "call 1 names #2"),
        ("1. a: #0", "names #0"),
    ],
)
def test_a_malformed_plan_is_asked_for_once_more_then_a_typed_error(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        read_plan(text)
    plans = iter([text, PLAN])
    assert method(lambda: next(plans)).task("Where?").run().text.startswith("Well: She likes")
    with pytest.raises(AnswerMalformed, match=said):
        method(text).task("Where?").run()


@given(st.text(alphabet='[{"tolquery:a#1}].,\n'))
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    try:
        plan = read_plan(text)
    except Malformed:
        return
    assert all(isinstance(call.query, str) for call in plan)


def test_lists_in_a_query_are_no_plan() -> None:
    assert read_plan('1. a: one of ["x", "y"]') == [Call("a", 'one of ["x", "y"]')]


@needs_xgrammar
def test_a_constrained_planner_plans_the_tools_there_are_however_weak_it_is() -> None:
    weak = ThinkPlanExecute(
        talking(), BOTH, planner=tiny_model(), max_calls=1, sampling=Sampling(max_tokens=300), constrained=True
    )
    outcome = weak.task("Where?").run()
    assert {call.tool for call in outcome.value.calls} <= set(BOTH)
    assert [message.step for message in outcome.trace.messages] == ["think", "plan", "execute"]


def test_an_empty_plan_is_replied_to_at_once() -> None:
    outcome = method("[]").task("Hello.").run()
    assert outcome.text == "Well:" and outcome.value.calls == () and not outcome.degraded


def test_calls_that_do_not_need_each_other_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=5)

    def wait(query: str) -> str:
        meeting.wait()
        return f"Trips for: {query}"

    outcome = method("1. left: a\n2. right: b\n3. last: #1 and #2", {"left": wait, "right": wait, "last": trips})
    calls = outcome.task("Where?").run().value.calls
    assert [call.result for call in calls] == [
        "Trips for: a",
        "Trips for: b",
        "Trips for: Trips for: a and Trips for: b",
    ]


def test_an_unknown_tool_and_what_needs_it_are_left_out_and_said() -> None:
    plan = "1. weather: tomorrow\n2. trips: for #1\n3. trips: after #2\n4. persona: likes"
    outcome = method(plan).task("Where?").run()
    assert outcome.text == "Well: She likes lakes."
    assert [call.missing for call in outcome.value.calls] == [
        "there is no tool 'weather'",
        "it needs #1, which is missing",
        "it needs #2, which is missing",
        "",
    ]
    assert len(outcome.degraded) == 3


def test_a_tool_that_fails_dies_or_says_nothing_is_left_out_and_said() -> None:
    def broken(query: str) -> str:
        raise ValueError("no connection")

    async def dies(job: Job) -> str:
        raise ModelError("out of memory")

    tools: Tools = {
        "broken": broken,
        "dead": SubTask(lambda query: Task("dead", dies)),
        "mute": lambda query: " ",
        "again": Recurse(),
        "persona": persona,
    }
    outcome = method("1. broken: a\n2. dead: b\n3. mute: c\n4. again: d\n5. persona: e", tools).task("Where?").run()
    assert outcome.text == "Well: She likes lakes."
    missing = [call.missing for call in outcome.value.calls]
    assert "ValueError: no connection" in missing[0] and missing[1] == "ModelError: out of memory"
    assert missing[2] == "it gave nothing" and "nobody decomposes" in missing[3] and len(outcome.degraded) == 4


def test_a_tool_may_be_a_model_or_a_task_with_an_account_below_the_run() -> None:
    mood = PromptedModel(ScriptedModel(["She likes quiet."]), form="text", description="The user's mood.")
    calm = method("1. mood: how?\n2. trips: for one: #1", {"mood": mood, "trips": trips})
    outcome = calm.task("Where?").run(paid_by=Limits(tokens=5_000))
    assert "for one: She likes quiet." in outcome.text and outcome.spent.calls == 4
    assert {child.name for child in outcome.report.children} == {"1-mood", "2-trips"}


def test_a_plan_that_is_too_long_is_cut_and_said() -> None:
    outcome = method("1. persona: a\n2. trips: b\n3. trips: c", max_calls=1).task("Where?").run()
    assert len(outcome.value.calls) == 1 and "3 calls were planned" in outcome.degraded[0]


def test_each_role_may_have_a_model_of_its_own_and_all_see_the_dialogue() -> None:
    thinker, planner, executor = talking(), talking("[]"), talking()
    history = [turn("user", "Hello, I am Ann."), turn("assistant", "Hello Ann.")]
    ThinkPlanExecute(thinker, BOTH, planner=planner, executor=executor).task("Where?", history=history).run()
    for model in (thinker, planner, executor):
        (request,) = model.prompts
        assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
        assert request.messages[1].content == "Hello, I am Ann."
    assert "trips: Trips by what somebody likes." in planner.prompts[0].messages[0].content
    assert "She wants a day out." in executor.prompts[0].messages[0].content


def test_results_larger_than_the_window_shrink_the_message_stays_and_the_outcome_says_so() -> None:
    def book(query: str) -> str:
        return "\n".join(f"Page {n} has nothing to say about lakes." for n in range(500))

    model = talking("1. book: all\n2. persona: likes", window_tokens=300)
    outcome = ThinkPlanExecute(model, {"book": book, "persona": persona}, sampling=SHORT).task("Where to now?").run()
    assert "She likes lakes." in outcome.text and outcome.degraded
    assert all("Where to now?" in request.messages[-1].content for request in model.prompts)


def test_a_message_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BudgetInfeasible, match="message"):
        ThinkPlanExecute(talking(window_tokens=100), BOTH, sampling=SHORT).task("Where? " * 80).run()


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_empty_answer_of_any_role_is_a_typed_error(step: int) -> None:
    replies = ["She wants a day out.", "[]", "Go."]
    replies[step:] = ["", ""]
    with pytest.raises(AnswerMalformed, match="it was empty"):
        ThinkPlanExecute(ScriptedModel(replies), BOTH).task("Where?").run()


def test_a_reply_that_is_cut_off_is_taken_and_said() -> None:
    model = ScriptedModel(["She wants a day out.", "[]", "Go to a lake, as there are many of them."])
    outcome = ThinkPlanExecute(model, BOTH, sampling=Sampling(max_tokens=5)).task("Where?").run()
    assert outcome.text == "Go to a lake, as"
    assert outcome.degraded == ("think-plan-execute: the answer to 'execute' was cut off after 5 tokens",)


def test_a_resumed_run_asks_no_tool_twice(tmp_path: Path) -> None:
    asked: list[str] = []

    def source(query: str) -> str:
        asked.append(query)
        return "She likes lakes."

    def dying(*replies: Any) -> ThinkPlanExecute:
        return ThinkPlanExecute(ScriptedModel(list(replies)), {"source": source})

    with pytest.raises(ModelError):
        dying("Thinks.", "1. source: a", ModelError("died")).task("Where?").run(checkpoint=tmp_path / "run.db")
    outcome = dying("To a lake.").task("Where?").run(checkpoint=tmp_path / "run.db")
    assert outcome.text == "To a lake." and asked == ["a"] and outcome.paid.calls == 1


@settings(max_examples=40)
@given(tokens=st.integers(0, 500), calls=st.integers(0, 4), lenient=st.booleans())
def test_a_short_budget_is_never_exceeded(tokens: int, calls: int, lenient: bool) -> None:
    run = Run(Limits(tokens=tokens, calls=calls), overdraft="degrade" if lenient else "raise")
    try:
        outcome = method().task("Where shall I go?").run(paid_by=run)
    except CtxkitError as error:
        assert isinstance(error, BudgetOverdrawn | BudgetInfeasible | AnswerMalformed)
    else:
        assert outcome.degraded or outcome.text.endswith("who says: She likes lakes.")
    report = run.report()
    assert report.spent.tokens <= tokens and report.spent.calls <= calls
    assert report.reserved.tokens == report.overdrawn.tokens == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"tools": {}}, "`tools`"),
        ({"tools": {"a b": trips}}, "a b"),
        ({"max_calls": 0}, "max_calls"),
        ({"at_once": 0}, "at_once"),
    ],
)
def test_wrong_settings_are_refused_with_their_value(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ThinkPlanExecute(**{"model": ScriptedModel([]), "tools": BOTH, **setting})
