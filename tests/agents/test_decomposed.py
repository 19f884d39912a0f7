"""Decomposed prompting: the grammar, the operations, the handlers, and what becomes of every fault."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits, Run
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, CtxkitError, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit_agents import FunctionTool
from ctxkit_agents.decomposed import (
    Decomposed,
    Extract,
    Function,
    HandlerFailed,
    PromptedModel,
    Recurse,
    Retrieve,
    Step,
    SubTask,
)
from ctxkit_agents.decomposed.grammar import parse_demonstration, parse_step, step_regex
from ctxkit_agents.decomposed.operations import resolved
from ctxkit_agents.errors import AnswerMalformed, CallTimeout, StepsExhausted, ToolError
from ctxkit_agents.runtime.forms import Malformed
from tests.agents.decomp_rules import letters, reversal

DEMONSTRATION = """
QC: Take the letters at position 1 of the words in "Alan Turing" and concatenate them using a space.
QS: [split] What are the words in "Alan Turing"?
A: ["Alan", "Turing"]
QS: (project_values) [letter] What is the letter at position 1 in "#1"?
A: ["A", "T"]
QS: (select) [merge] Concatenate #2 using a space.
A: "A T"
QS: [EOQ]
"""
needs_xgrammar = pytest.mark.skipif(find_spec("xgrammar") is None, reason="the extra `structured` is not installed")
LINES = ["QS: [upper] a", "QS: (project) [upper] #1", "QS: [EOQ]", "", "no", "QS: [x] #9"]
ASKED = 'Take the letters at position 2 of the words in "Ada King Noel" and concatenate them using a space.'


def writing(*lines: str | Exception, **handlers: Any) -> Decomposed:
    """A decomposer that writes these lines, whatever it sees."""
    return Decomposed(ScriptedModel(list(lines), window_tokens=2048), handlers or {"upper": str.upper})


def answer(method: Decomposed, question: str = "x", **options: Any) -> Any:
    return method.task(question).run(**options).value.answer


# --- the grammar ------------------------------------------------------------------------------------------------------


def test_a_step_is_read_and_shown_the_same() -> None:
    line = "QS: (project_values_flat_unique(#2)) [who] Did #2 know #1?"
    step = parse_step(line)
    assert step == Step("project_values", "who", "Did #2 know #1?", over=2, flat=True, unique=True)
    assert str(step) == line and step.references == (2, 1)
    assert parse_step(" QS: [split] a \n\n") == Step("select", "split", "a")
    assert parse_step("QS: [EOQ]") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, '', is no step"),
        ("[split] What?", "is no step"),
        ("QS: What?", "is no step"),
        ("QS: [] What?", "has no handler"),
        ("QS: [split]", "has no sub-question"),
        ("QS: (guess) [split] What?", "'guess' is no operation"),
        ("QS: (select_flat) [split] What?", "project_values and project_keys only"),
        ("QS: (select(#1)) [split] #1?", "takes no"),
        ("QS: [split] What?\nQS: [split] And?", "line 2, 'QS: .split. And.', is one too many"),
        ("QS: [EOQ] done", "nothing stands beside"),
    ],
)
def test_a_malformed_step_is_refused_by_its_line(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        parse_step(text)


def test_a_demonstration_is_read_whole() -> None:
    demonstration = parse_demonstration(DEMONSTRATION)
    assert [step.handler for step, _ in demonstration.steps] == ["split", "letter", "merge"]
    assert demonstration.steps[1][1] == ["A", "T"]
    assert parse_demonstration(str(demonstration)) == demonstration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1"),
        ("QS: [EOQ]", "line 1 must begin with `QC:`"),
        ("QC: x\nQS: [EOQ]", "line 2"),
        ('QC: x\nQS: [a] b\nA: "c"', "line 3"),
        ("QC: x\nQS: [a] b\nQS: [EOQ]", "line 3"),
        ("QC: x\nQS: [a] b\nA: c\nQS: [EOQ]", "line 3, 'A: c': the answer is not JSON"),
        ("QC: x\nQS: [EOQ]\nA: 1\nQS: [EOQ]", "line 2"),
    ],
)
def test_a_malformed_demonstration_is_a_wrong_setting(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Decomposed(ScriptedModel([]), {"a": str.upper}, demonstrations=[text])


@given(st.text(alphabet="QS: (select)[abEO]#1\nA"))
def test_any_text_is_a_step_or_refused(text: str) -> None:
    try:
        step = parse_step(text)
    except Malformed:
        return
    assert step is None or parse_step(str(step)) == step


def test_the_regex_of_steps_matches_steps_and_nothing_else() -> None:
    regex = step_regex(["upper", "lower"], 20)
    for line in ("QS: (select) [upper] a", "QS: (filter_keys) [lower] is #1", "QS: [EOQ]"):
        assert re.fullmatch(regex, line) and parse_step(line) != Step("select", "", "")
    for line in ("QS: (guess) [upper] a", "QS: (select) [other] a", "QS: (select) [upper]  ", "QS: [EOQ] a", "a"):
        assert not re.fullmatch(regex, line)
    assert not re.fullmatch(regex, f"QS: (select) [upper] {'a' * 21}")


@needs_xgrammar
def test_a_constrained_model_writes_steps_however_weak_it_is() -> None:
    method = Decomposed(
        tiny_model(),
        {"upper": str.upper},
        shown_chars=8,
        max_steps=3,
        sampling=Sampling(max_tokens=64),
        constrained=True,
    )
    task = method.task("x")
    with pytest.raises((AnswerMalformed, StepsExhausted)):
        task.run()
    assert task.trace.messages and all(parse_step(message.text) for message in task.trace.messages)


# --- the operations ---------------------------------------------------------------------------------------------------


def asked(line: str, *answers: Any) -> tuple[tuple[str, ...], Any]:
    """The questions of a step, and what it comes to where each is answered by its last word, or by a list of it."""
    step = parse_step(line)
    assert step is not None
    what = resolved(step, answers)
    return what.questions, what.combine([question.split()[-1] for question in what.questions])


def test_each_operation_gives_what_it_says() -> None:
    pair, table = ["a", "b"], {"k": "a", "l": "b"}
    assert asked("QS: [h] Say #1 to #2", pair, 3) == (('Say ["a", "b"] to 3',), "3")
    assert asked("QS: (project) [h] Of #1", pair) == (("Of a", "Of b"), {"a": "a", "b": "b"})
    assert asked("QS: (project) [h] Of #1", table) == (("Of a", "Of b"), {"k": "a", "l": "b"})
    assert asked("QS: (project_values) [h] Of #1", table)[1] == ["a", "b"]
    assert asked("QS: (project_keys) [h] Of #1", table) == (("Of k", "Of l"), ["k", "l"])
    assert asked("QS: (filter) [h] Is it #1", ["yes", "no", True, "No."]) == (
        ("Is it yes", "Is it no", "Is it true", "Is it No."),
        ["yes", True],
    )
    assert asked("QS: (filter) [h] Is it #1", {"k": "yes", "l": "no"})[1] == {"k": "yes"}
    assert asked("QS: (filter_keys) [h] Is it #1", {"yes": 1, "no": 2})[1] == {"yes": 1}
    assert asked("QS: (project_values(#2)) [h] #1 of #2", 7, ["a"]) == (("7 of a",), ["a"])


def test_flat_opens_lists_and_unique_keeps_the_first() -> None:
    step = Step("project_values", "h", "#1", flat=True, unique=True)
    assert resolved(step, [["x", "y", "z"]]).combine([["b", "a"], "c", ["a"]]) == ["b", "a", "c"]


def test_equal_items_are_asked_about_once() -> None:
    questions, answers = asked("QS: (project_values) [h] Of #1", ["a", "b", "a"])
    assert questions == ("Of a", "Of b") and answers == ["a", "b", "a"]


def test_an_empty_list_asks_nothing() -> None:
    assert asked("QS: (project_values) [h] Of #1", []) == ((), [])
    assert asked("QS: (filter) [h] Of #1", {}) == ((), {})


def test_references_are_whole_numbers_and_what_is_put_in_is_not_read_again() -> None:
    answers = [f"v{n}" for n in range(1, 11)]
    assert asked("QS: [h] #1 #10", *answers)[0] == ('"v1" "v10"',)
    assert asked("QS: [h] #1 #2", "#2", "two")[0] == ('"#2" "two"',)


@pytest.mark.parametrize(
    ("line", "answers", "said"),
    [
        ("QS: [h] #1", [], "#1 does not exist: there is no answer yet"),
        ("QS: [h] #3", ["a", "b"], "the answers so far are #1 to #2"),
        ("QS: [h] #0", ["a"], "#0 does not exist"),
        ("QS: (project) [h] #1", ["text"], "#1 is no list"),
        ("QS: (project_keys) [h] #1", [["a"]], "is a list and has no keys; use project"),
        ("QS: (filter) [h] nothing", [["a"]], "names no answer"),
        ("QS: (filter) [h] #1 #2", [["a"], ["b"]], r"say which, as in \(filter\(#1\)\)"),
        ("QS: (filter(#2)) [h] #1", [["a"], ["b"]], "must name #2"),
    ],
)
def test_a_step_that_cannot_be_resolved_says_why(line: str, answers: list[Any], said: str) -> None:
    with pytest.raises(Malformed, match=said):
        asked(line, *answers)


def test_a_filter_needs_yes_or_no() -> None:
    with pytest.raises(ToolError, match="said 'perhaps'"):
        resolved(Step("filter", "h", "#1"), [["a"]]).combine(["perhaps"])


# --- the handlers -----------------------------------------------------------------------------------------------------


def test_a_function_keeps_texts_and_numbers_apart() -> None:
    lines = ['QS: [f] "12"', "QS: [EOQ]"]
    assert answer(writing(*lines, f=lambda question: json.loads(question))) == "12"
    assert answer(writing(*lines, f=lambda question: int(json.loads(question)))) == 12


def test_async_functions_and_tools_are_handlers() -> None:
    async def later(question: str) -> list[str]:
        return [question]

    def shout(text: str) -> str:
        """Says it loud."""
        return text.upper()

    method = writing("QS: [later] a", "QS: [shout] b", "QS: [EOQ]", later=later, shout=FunctionTool(shout))
    assert answer(method) == "B" and "[shout] Says it loud." in method.system_prompt()


def test_a_function_of_two_arguments_is_no_handler() -> None:
    with pytest.raises(ValueError, match="one argument"):
        Function(FunctionTool(lambda a, b: a, name="two"))


def test_a_pattern_takes_the_last_answer_out_of_the_text() -> None:
    assert Extract().read('Of "a, b" half is ["a"].') == ["a"]
    assert Extract(r"= (\d+)").read("6 * 7 = 42") == 42
    with pytest.raises(ToolError, match="no answer"):
        Extract().read("I do not know.")
    with pytest.raises(ValueError, match="one group"):
        Extract(r"\d+")


def test_an_index_answers_with_its_texts() -> None:
    class Found:
        def search(self, query: str, k: int) -> list[Any]:
            return [SimpleNamespace(chunk=SimpleNamespace(text=f"{query} {n}")) for n in range(k)]

    assert answer(writing("QS: [find] rivers", "QS: [EOQ]", find=Retrieve(Found(), k=2))) == ["rivers 0", "rivers 1"]  # type: ignore[arg-type]


def test_a_task_and_another_decomposer_are_handlers() -> None:
    inner = writing("QS: [upper] inner", "QS: [EOQ]")
    outer = writing(
        "QS: [inner] a", "QS: [task] b", "QS: (select) [same] #1 #2", "QS: [EOQ]",
        inner=inner, task=SubTask(lambda question: writing(f"QS: [upper] {question}", "QS: [EOQ]").task("y")), same=str,
    )  # fmt: skip
    outcome = outer.task("x").run()
    assert outcome.value.answer == '"INNER" "B"' and outcome.text == '"INNER" "B"'
    assert "1-inner (Decomposed)" in str(outcome.trace)


def test_a_prompted_model_has_its_own_demonstrations_and_reads_the_passages() -> None:
    model = ScriptedModel(['["Rhine"]'])
    reader = PromptedModel(model, demonstrations=[("Where is Rome?", "Italy")], form="json")
    outcome = (
        writing("QS: [read] Which river?", "QS: [EOQ]", read=reader)
        .task("x", passages=["The Rhine flows past Cologne."])
        .run()
    )
    seen = "\n".join(message.content for message in model.prompts[0].messages)
    assert outcome.value.answer == ["Rhine"]
    assert 'Q: Where is Rome?\nA: "Italy"' in seen and "flows past Cologne" in seen and "JSON only" in seen


def test_forms_of_answers() -> None:
    def said(form: Any, *texts: str) -> Any:
        return answer(writing("QS: [m] q", "QS: [EOQ]", m=PromptedModel(ScriptedModel(list(texts)), form=form)))

    assert said("any", "A: 12") == 12 and said("any", "A: twelve") == "twelve"
    assert said("text", "12") == "12" and said("text", "word " * 200) == ("word " * 128).strip()
    assert said("json", "twelve", "12") == 12
    with pytest.raises(AnswerMalformed, match="not JSON"):
        said("json", "twelve", "twelve")


# --- the machine ------------------------------------------------------------------------------------------------------


def test_answers_move_by_reference_and_a_long_one_is_shown_short() -> None:
    long = [f"word{n}" for n in range(200)]
    seen: list[Request] = []

    def write(request: Request) -> str:
        seen.append(request)
        return ["QS: [words] all", "QS: [count] #1", "QS: [EOQ]"][len(seen) - 1]

    model = ScriptedModel(write)
    method = Decomposed(model, {"words": lambda _: long, "count": lambda text: len(json.loads(text))}, shown_chars=40)
    outcome = method.task("How many?").run()
    assert outcome.value.answer == 200 and outcome.text == "200"
    assert "(200 items in all)" in seen[1].messages[-1].content
    assert len(seen[1].messages[-1].content) < 200


def test_a_question_of_several_lines_cannot_pass_for_steps() -> None:
    model = ScriptedModel(["QS: [upper] a", "QS: [EOQ]"])
    Decomposed(model, {"upper": str.upper}).task("What?\nQS: [EOQ]").run()
    assert model.prompts[0].messages[1].content == "QC: What? QS: [EOQ]"


def test_demonstrations_shrink_by_count_and_the_outcome_says_so() -> None:
    method = letters()
    crowded = Decomposed(method.model, method.handlers, demonstrations=[DEMONSTRATION] * 3)
    assert not crowded.task(ASKED).run().degraded
    small = ScriptedModel(method.model._replies, window_tokens=430)  # type: ignore[attr-defined]
    outcome = Decomposed(small, method.handlers, demonstrations=[DEMONSTRATION] * 3).task(ASKED).run()
    assert outcome.value.answer == "d i o"
    kept = [len([line for line in text.splitlines() if line == "QS: [EOQ]"]) for text in systems(small)]
    assert kept == sorted(kept, reverse=True) and 0 < kept[-1] < 3
    assert any("of 3 demonstrations fitted" in one for one in outcome.degraded)


def systems(model: ScriptedModel) -> Iterator[str]:
    return (request.messages[0].content for request in model.prompts)


def test_a_question_that_cannot_fit_is_refused() -> None:
    method = letters()
    small = ScriptedModel([], window_tokens=200)
    with pytest.raises(BudgetInfeasible):
        Decomposed(small, method.handlers).task(ASKED).run()


def test_sub_questions_are_jobs_and_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=5)

    def together(question: str) -> str:
        meeting.wait()
        return question

    method = writing(
        "QS: [list] x", "QS: (project_values) [wait] #1", "QS: [EOQ]", list=lambda _: [1, 2, 3], wait=together
    )
    outcome = method.task("x").run()
    (root,) = outcome.trace.roots
    assert outcome.value.answer == ["1", "2", "3"]
    assert [child.name for child in root.children] == ["1-list", "2-wait-1", "2-wait-2", "2-wait-3"]


@pytest.mark.parametrize(
    ("lines", "answered"),
    [
        (["QS: what?", "QS: [upper] a", "QS: [EOQ]"], "A"),
        (["", "QS: [upper] a", "QS: [EOQ]"], "A"),
        (["QS: [lower] a", "QS: [upper] a", "QS: [EOQ]"], "A"),
        (["QS: [upper] #1", "QS: [upper] a", "QS: [EOQ]"], "A"),
        (["QS: [EOQ]", "QS: [upper] a", "QS: [EOQ]"], "A"),
        (["QS: [upper] a", "QS: (project) [upper] #1", "QS: [upper] b", "QS: [EOQ]"], "B"),
        (["oops", "QS: [upper] a", "oops", "QS: [EOQ]"], "A"),  # once per step
    ],
)
def test_a_fault_is_told_to_the_model_which_does_better(lines: list[str], answered: str) -> None:
    outcome = writing(*lines).task("x").run()
    assert outcome.value.answer == answered
    assert "correct" in {message.step for message in outcome.trace.messages}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["oops", "oops"], "is no step"),
        (["", ""], "it was empty"),
        (["QS: [lower] a", "QS: [lower] a"], r"no handler \[lower\]; there are \[upper\]"),
        (["QS: [upper] #7", "QS: [upper] #7"], "#7 does not exist"),
        (["QS: [EOQ]", "QS: [EOQ]"], "there is no answer yet"),
        (["QS: [upper] a", "QS: (filter) [upper] #1", "QS: (filter) [upper] #1"], "#1 is no list"),
        (["QS: [upper] a", "QS: [upper] a", "QS: [upper] a"], "this is step 1 again, and #1 is its answer"),
        (["QS: [upper] #1", "oops"], "is no step"),  # two faults of two kinds are two
    ],
)
def test_a_fault_that_comes_again_is_a_typed_error(lines: list[str], said: str) -> None:
    with pytest.raises(AnswerMalformed, match=said) as error:
        writing(*lines).task("x").run()
    assert error.value.answer == lines[-1]


def test_a_line_that_was_cut_off_is_no_step_even_where_it_reads_like_one() -> None:
    method = writing("QS: [upper] one two three", "QS: [upper] short", "QS: [EOQ]")
    cut = Decomposed(method.model, {"upper": str.upper}, sampling=Sampling(max_tokens=3))
    outcome = cut.task("x").run()
    assert outcome.value.answer == "SHORT"


def test_a_handler_that_fails_is_told_and_then_a_typed_error() -> None:
    def strict(question: str) -> str:
        if question != "good":
            raise ToolError(f"ask for good, not {question}")
        return question

    assert answer(writing("QS: [strict] bad", "QS: [strict] good", "QS: [EOQ]", strict=strict)) == "good"
    with pytest.raises(HandlerFailed, match="ask for good, not worse"):
        answer(writing("QS: [strict] bad", "QS: [strict] worse", strict=strict))


def test_a_failure_below_is_not_told_to_everybody_above() -> None:
    calls: list[str] = []

    def failing(question: str) -> str:
        calls.append(question)
        raise ValueError("broken")

    def write(request: Request) -> str:
        depth = request.messages[1].content.splitlines()[0].count("x")
        return f"QS: [again] {'x' * (depth + 1)}" if depth < 4 else "QS: [fail] a"

    method = Decomposed(ScriptedModel(write), {"again": Recurse(), "fail": failing})
    with pytest.raises(HandlerFailed, match="ValueError: broken"):
        method.task("x").run()
    assert len(calls) == 2


def test_a_loop_ends_at_max_steps() -> None:
    longer = ScriptedModel(lambda request: f"QS: [upper] {'a' * len(request.messages[1].content)}")
    method = Decomposed(longer, {"upper": str.upper}, max_steps=3)
    with pytest.raises(StepsExhausted, match="`max_steps` 3"):
        method.task("x").run()


def test_recursion_ends_at_max_depth_and_where_it_gets_no_smaller() -> None:
    def deeper(request: Request) -> str:
        return f"QS: [again] {request.messages[1].content.splitlines()[0].removeprefix('QC: ')}x"

    endless = ScriptedModel(deeper)
    with pytest.raises(StepsExhausted, match="`max_depth` is 5"):
        Decomposed(endless, {"again": Recurse()}, max_depth=5).task("x").run()
    assert len(endless.prompts) == 6
    with pytest.raises(HandlerFailed, match="is being answered already"):
        Decomposed(ScriptedModel(lambda request: "QS: [again] x"), {"again": Recurse()}).task("x").run()


def test_recursion_halves_until_a_leaf_can() -> None:
    outcome = reversal().task('Reverse the sequence "a, b, c, d, e, f, g, h, i".').run()
    assert outcome.value.answer == "i, h, g, f, e, d, c, b, a"
    with pytest.raises(StepsExhausted):
        reversal(max_depth=1).task('Reverse the sequence "a, b, c, d, e, f, g, h, i".').run()


def test_a_worker_that_dies_ends_the_run_in_its_own_error_and_gives_back_what_it_reserved() -> None:
    run = Run(Limits(tokens=50_000))
    dying = PromptedModel(ScriptedModel(["a", ModelError("out of memory"), "c"], window_tokens=512))
    method = writing("QS: [list] x", "QS: (project_values) [m] Of #1", list=lambda _: [1, 2, 3], m=dying)
    with pytest.raises(ModelError, match="out of memory"):
        method.task("x").run(paid_by=run)
    assert run.report().reserved.tokens == 0 and all(child.closed for child in run.report().children)


def test_calls_that_hang_are_timeouts() -> None:
    release = threading.Event()

    def hang(question: str) -> str:
        release.wait(0.3)
        return question

    class Hanging(ScriptedModel):
        def _answer(self, prompt: Any, sampling: Sampling) -> Any:
            answer = super()._answer(prompt, sampling)
            inner = answer.pieces
            answer.pieces = lambda stopped: (release.wait(0.3), (yield from inner(stopped)))[1]  # type: ignore[method-assign]
            return answer

    try:
        with pytest.raises(CallTimeout):
            Decomposed(Hanging(["QS: [EOQ]"]), {"upper": str.upper}, timeout_seconds=0.05).task("x").run()
        slow = FunctionTool(hang, timeout_seconds=0.05)
        with pytest.raises(HandlerFailed, match="within 0.05 seconds"):
            answer(writing("QS: [slow] a", "QS: [slow] a", slow=slow))
    finally:
        release.set()


def test_finished_steps_are_not_paid_again(tmp_path: Path) -> None:
    broken = letters()
    fails = iter([False, True])

    def fragile(request: Request) -> Any:
        return ModelError("died") if next(fails, False) else letters().handlers["letter"].model._replies(request)  # type: ignore[union-attr]

    handlers = {**broken.handlers, "letter": PromptedModel(ScriptedModel(fragile, window_tokens=512), form="json")}
    method = Decomposed(broken.model, handlers, at_once=1)
    with pytest.raises(ModelError):
        method.task(ASKED).run(checkpoint=tmp_path / "run.db")
    outcome = method.task(ASKED).run(checkpoint=tmp_path / "run.db")
    assert outcome.value.answer == "d i o"
    assert outcome.spent.calls == 7 and outcome.paid.calls == 4


@settings(max_examples=60)
@given(tokens=st.integers(0, 1600), calls=st.integers(0, 9), lenient=st.booleans())
def test_a_short_budget_is_never_exceeded_and_never_makes_an_answer_wrong(
    tokens: int, calls: int, lenient: bool
) -> None:
    run = Run(Limits(tokens=tokens, calls=calls), overdraft="degrade" if lenient else "raise")
    try:
        outcome = letters().task(ASKED).run(paid_by=run)
    except CtxkitError as error:
        assert isinstance(error, BudgetOverdrawn | BudgetInfeasible | AnswerMalformed)
    else:
        assert outcome.value.answer == "d i o"
    report = run.report()
    assert report.spent.tokens <= tokens and report.spent.calls <= calls
    assert report.reserved.tokens == report.overdrawn.tokens == 0


@settings(max_examples=40)
@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_whatever_a_model_writes_ends_in_an_answer_or_a_typed_error(lines: list[str]) -> None:
    run = Run(Limits(tokens=20_000, calls=12))
    try:
        outcome = writing(*lines).task("x").run(paid_by=run)
    except CtxkitError:
        pass
    else:
        assert outcome.value.answer == "A"
    assert run.spent.tokens <= 20_000


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"max_depth": -1}, "max_depth"),
        ({"handlers": {}}, "handlers"),
        ({"handlers": {"EOQ": str.upper}}, "EOQ"),
        ({"handlers": {"a/b": str.upper}}, "a/b"),
        ({"demonstrations": [DEMONSTRATION]}, "'split', which is not in `handlers`"),
    ],
)
def test_wrong_settings_are_refused_with_their_value(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Decomposed(**{"model": ScriptedModel([]), "handlers": {"upper": str.upper}, **setting})
