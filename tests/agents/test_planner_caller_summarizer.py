"""PlannerCallerSummarizer: who is asked what, what each sees, and what becomes of every fault."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits, Run
from ctxkit.errors import BudgetError, BudgetInfeasible, BudgetOverdrawn, CtxkitError, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit_agents import FunctionTool
from ctxkit_agents.errors import AnswerMalformed, StepsExhausted
from ctxkit_agents.planner_caller_summarizer import PlannerCallerSummarizer

SHARES: Any = {"planner": 0.5, "caller": 0.3, "summarizer": 0.2}
needs_xgrammar = pytest.mark.skipif(find_spec("xgrammar") is None, reason="the extra `structured` is not installed")
SHORT = Sampling(max_tokens=24)
CALL_A = 'Action: level\nAction Input: {"river": "Rhine"}'
MORE, END = "The level is needed.\nNext: caller.", "It is known.\nNext: conclusion."


def level(river: str) -> str:
    """The level of a river in cm."""
    levels = {"Rhine": "231", "Moselle": "198"}
    if river not in levels:
        raise LookupError(f"no gauge on the {river}")
    return levels[river]


def method(*replies: Any, tools: Any = (level,), window_tokens: int = 2048, **options: Any) -> PlannerCallerSummarizer:
    return PlannerCallerSummarizer(
        ScriptedModel(list(replies), window_tokens=window_tokens), tools, sampling=SHORT, **options
    )


def right(request: Request) -> str:
    """A model that reads the level of the Rhine, then of the Moselle, and says both."""
    role, seen = request.messages[0].content, "\n".join(message.content for message in request.messages)
    known = re.findall(r"(?:Observation|Failed):\s(\S+)", seen)
    if role.startswith("You plan"):
        return MORE if len(known) < 2 else END
    if role.startswith("You write"):
        return f'Action: level\nAction Input: {{"river": "{("Rhine", "Moselle")[len(known)]}"}}'
    return f"The levels are {' and '.join(known)} cm."


def test_the_planner_plans_the_caller_calls_the_summarizer_concludes() -> None:
    model = ScriptedModel(right)
    outcome = PlannerCallerSummarizer(model, [level]).task("How high are they?").run()
    assert outcome.text == "The levels are 231 and 198 cm." and not outcome.value.gave_up and not outcome.degraded
    assert [(step.tool, step.arguments, step.result) for step in outcome.value.steps] == [
        ("level", {"river": "Rhine"}, "231"),
        ("level", {"river": "Moselle"}, "198"),
    ]
    (root,) = outcome.trace.roots
    assert [child.name for child in root.children] == [
        "planner-1", "caller-1", "planner-2", "caller-2", "planner-3", "summarizer",
    ]  # fmt: skip
    assert {"message", "tool"} <= {event.type for event in root.children[1].events}


def test_each_role_may_have_a_model_of_its_own_and_the_summarizer_sees_no_tools() -> None:
    planner, caller, summarizer = ScriptedModel([MORE, END]), ScriptedModel([CALL_A]), ScriptedModel(["231 cm."])
    PlannerCallerSummarizer(planner, [level], caller=caller, summarizer=summarizer).task("How high?").run()
    assert [len(one.prompts) for one in (planner, caller, summarizer)] == [2, 1, 1]
    assert "The level of a river in cm." in planner.prompts[0].messages[0].content
    assert "The level of a river in cm." in caller.prompts[0].messages[0].content
    assert "level: " not in summarizer.prompts[0].messages[0].content
    assert "Observation:\n231" in summarizer.prompts[0].messages[-1].content


def test_giving_up_is_a_result() -> None:
    outcome = method("No tool knows that.\nNext: give up.").task("Who am I?").run()
    assert outcome.value.gave_up and outcome.text == "No tool knows that." and outcome.value.steps == ()


def test_what_a_tool_refuses_goes_into_the_history() -> None:
    danube = 'Action: level\nAction Input: {"river": "Danube"}'
    model = ScriptedModel([MORE, danube, MORE, CALL_A, END, "231 cm."])
    outcome = PlannerCallerSummarizer(model, [level]).task("How high?").run()
    assert [step.failed for step in outcome.value.steps] == [True, False]
    assert "Failed:\n`level` failed: LookupError: no gauge on the Danube" in model.prompts[2].messages[-1].content


def test_a_call_may_be_one_json_object() -> None:
    call = '{"Action": "level", "Action Input": {"river": "Rhine"}}'
    assert method(MORE, call, END, "231 cm.").task("How high?").run().value.steps[0].result == "231"


@needs_xgrammar
def test_constrained_roles_write_their_form_however_weak_they_are() -> None:
    def wait(seconds: Literal[1, 2]) -> str:
        """Waits."""
        return "done"

    caller = tiny_model()
    weak = PlannerCallerSummarizer(
        ScriptedModel([MORE, END, "It waited."]),
        [wait],
        caller=caller,
        sampling=Sampling(max_tokens=100),
        constrained=True,
    )
    (step,) = weak.task("Wait.").run().value.steps
    assert step.result == "done" and step.arguments["seconds"] in (1, 2)


def test_the_regex_of_plans_matches_plans_and_nothing_else() -> None:
    form = PlannerCallerSummarizer(ScriptedModel([]), [level], constrained=True).sampling_of("planner").response_format
    assert form and form["type"] == "regex"
    assert re.fullmatch(form["regex"], MORE) and re.fullmatch(form["regex"], END)
    assert not re.fullmatch(form["regex"], "What now?") and not re.fullmatch(form["regex"], "Next: caller.")


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (["What now?"], "must end with one of"),
        ([""], "it was empty"),
        (["Next: sing."], "must end with one of"),
        (["Next: caller. Then conclusion."], "must end with one of"),
        (["word " * 30 + "Next: caller."], "cut off after 24 tokens"),
        ([MORE, "level of the Rhine"], "it must be two lines"),
        ([MORE, 'Action: depth\nAction Input: {"river": "Rhine"}'], "no tool 'depth'; there are level"),
        ([MORE, "Action: level\nAction Input: Rhine"], "is no JSON object"),
        ([MORE, 'Action: level\nAction Input: {"lake": "Rhine"}'], "cannot be called so"),
        ([MORE, CALL_A, END, ""], "it was empty"),
    ],
)
def test_a_malformed_answer_is_asked_for_once_more_then_a_typed_error(replies: list[str], said: str) -> None:
    better = [MORE, CALL_A, END, "231 cm."]
    outcome = method(*replies, *better[len(replies) - 1 :]).task("How high?").run()
    assert outcome.text == "231 cm."
    reminded = [message for message in outcome.trace.messages if message.step.endswith("-again")]
    assert len(reminded) == 1 and re.search(said, reminded[0].prompt)
    with pytest.raises(AnswerMalformed, match=said) as error:
        method(*replies, replies[-1]).task("How high?").run()
    assert replies[-1].startswith(error.value.answer.strip())


def test_a_loop_ends_at_max_steps() -> None:
    looping = ScriptedModel(lambda request: MORE if request.messages[0].content.startswith("You plan") else CALL_A)
    with pytest.raises(StepsExhausted, match="`max_steps` 3"):
        PlannerCallerSummarizer(looping, [level], max_steps=3).task("How high?").run()
    assert len(looping.prompts) == 7


def test_old_steps_shrink_first_and_tools_and_question_never() -> None:
    def read(page: int) -> str:
        """Reads a page."""
        return f"page {page}: " + " ".join(f"w{page}.{n}" for n in range(120))

    pages = iter(range(1, 9))

    def reader(request: Request) -> str:
        if request.messages[0].content.startswith("You write"):
            return f'Action: read\nAction Input: {{"page": {next(pages)}}}'
        return MORE

    model = ScriptedModel(reader, window_tokens=500)
    with pytest.raises(StepsExhausted):
        PlannerCallerSummarizer(model, [read], max_steps=8, sampling=SHORT).task("Which page is it?").run()
    for request in model.prompts:
        assert "read: Reads a page." in request.messages[0].content
        assert any("Which page is it?" in message.content for message in request.messages)
    last = "\n".join(message.content for message in model.prompts[-1].messages)
    assert "page 8: w8.0" in last and "w8.119" in last and "w1.119" not in last


def test_a_last_step_larger_than_the_window_is_shortened_and_the_outcome_says_so() -> None:
    def log() -> str:
        """The log."""
        return "\n".join(f"line {n}: nothing" for n in range(500))

    call = "Action: log\nAction Input: {}"
    outcome = method(MORE, call, END, "Nothing.", tools=[log], window_tokens=300).task("What is in the log?").run()
    assert outcome.text == "Nothing." and len(outcome.value.steps[0].result) > 5_000
    assert any("the summarizer saw" in one for one in outcome.degraded)


def test_tools_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BudgetInfeasible, match="role"):
        method(MORE, window_tokens=60).task("How high?").run()


def test_shares_are_kept_and_leave_the_summarizer_enough_to_conclude() -> None:
    def plans_only(request: Request) -> str:
        role = request.messages[0].content
        return MORE if role.startswith("You plan") else CALL_A if role.startswith("You write") else "At least 231 cm."

    run = Run(Limits(tokens=1_600))
    model = ScriptedModel(plans_only)
    greedy = PlannerCallerSummarizer(model, [level], shares=SHARES, max_steps=50, sampling=SHORT)
    outcome = greedy.task("How high?").run(paid_by=run)
    assert outcome.text == "At least 231 cm." and 0 < len(outcome.value.steps) < 50
    assert any("had no tokens left" in one for one in outcome.degraded)
    by_role: dict[str, int] = {}
    for child in run.report().children:
        role = child.name.partition("-")[0]
        by_role[role] = by_role.get(role, 0) + child.spent.tokens
    assert all(by_role[role] <= 1_600 * share for role, share in SHARES.items()) and run.spent.tokens <= 1_600


def test_shares_need_a_run_with_a_limit() -> None:
    with pytest.raises(BudgetError, match="no limit of tokens"):
        method(MORE, shares=SHARES).task("How high?").run()


def test_without_steps_nothing_is_concluded_of_nothing() -> None:
    with pytest.raises((BudgetOverdrawn, BudgetInfeasible)):
        method(MORE, shares=SHARES).task("How high?").run(paid_by=Limits(tokens=100))


def test_a_model_that_dies_ends_the_run_in_its_own_error() -> None:
    run = Run(Limits(tokens=10_000))
    with pytest.raises(ModelError, match="gone"):
        method(MORE, ModelError("gone")).task("How high?").run(paid_by=run)
    assert run.report().reserved.tokens == 0


def test_a_resumed_run_pays_for_no_step_and_uses_no_tool_twice(tmp_path: Path) -> None:
    used: list[str] = []

    def pay(amount: int) -> str:
        """Pays."""
        used.append(str(amount))
        return "paid"

    call, tools = 'Action: pay\nAction Input: {"amount": 3}', [FunctionTool(pay, repeatable=False)]
    with pytest.raises(ModelError):
        method(MORE, call, ModelError("died"), tools=tools).task("Pay 3.").run(checkpoint=tmp_path / "run.db")
    outcome = method(END, "Paid.", tools=tools).task("Pay 3.").run(checkpoint=tmp_path / "run.db")
    assert outcome.text == "Paid." and used == ["3"]
    assert (outcome.spent.calls, outcome.paid.calls) == (4, 2)


@settings(max_examples=30)
@given(tokens=st.integers(0, 1500), calls=st.integers(0, 8), lenient=st.booleans(), shared=st.booleans())
def test_a_short_budget_is_never_exceeded(tokens: int, calls: int, lenient: bool, shared: bool) -> None:
    run = Run(Limits(tokens=tokens, calls=calls), overdraft="degrade" if lenient else "raise")
    task = PlannerCallerSummarizer(
        ScriptedModel(right), [level], shares=SHARES if shared else None, sampling=SHORT
    ).task("How high are they?")
    try:
        outcome = task.run(paid_by=run)
    except CtxkitError as error:
        assert isinstance(error, BudgetOverdrawn | BudgetInfeasible | AnswerMalformed)
    else:
        assert outcome.degraded or outcome.text == "The levels are 231 and 198 cm."
    report = run.report()
    assert report.spent.tokens <= tokens and report.spent.calls <= calls
    assert report.reserved.tokens == report.overdrawn.tokens == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"tools": []}, "`tools`"),
        ({"tools": [level, level]}, "two tools"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"shares": {"planner": 1.0}}, "`shares`"),
        ({"shares": {**SHARES, "caller": 0.9}}, "`shares`"),
        ({"shares": {**SHARES, "caller": 0.0}}, "`shares`"),
    ],
)
def test_wrong_settings_are_refused_with_their_value(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PlannerCallerSummarizer(**{"model": ScriptedModel([]), "tools": [level], **setting})
