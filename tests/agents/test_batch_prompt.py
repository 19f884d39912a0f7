"""BatchPrompt: every item gets one answer or a note, and no prompt is over the window."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits, Run
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel
from ctxkit_agents.batch_prompt import BatchPrompt, BatchResult
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.numbered import numbered, numbered_lines

ASKED = "Is the number even?"
OPTIONS = ("yes", "no")


def items_of(request: Request) -> list[tuple[int, str]]:
    """Number in the prompt and text of each item that the model sees."""
    listed = re.findall(r"^\[(\d+)\] (.*)$", request.messages[-1].content, re.MULTILINE)
    return [(int(number), text) for number, text in listed]


def is_even(text: str) -> str:
    return "yes" if int(text.split()[0]) % 2 == 0 else "no"


def right(request: Request) -> str:
    return "\n".join(f"{number}: {is_even(text)} | sure" for number, text in items_of(request))


def unsure(request: Request) -> str:
    return right(request).replace("| sure", "| unsure")


def by_place(request: Request) -> str:
    """Right but for the last place of a batch of several, whose answer it turns round."""
    *lines, last = unsure(request).splitlines()
    turned = last.replace("yes", "NO").replace("no |", "yes |").replace("NO", "no") if lines else last
    return "\n".join([*lines, turned])


def ask(answer: Callable[[Request], Any], *, window: int = 8192, **settings: Any) -> tuple[BatchPrompt, ScriptedModel]:
    model = ScriptedModel(answer, window_tokens=window)
    settings = {"sampling": Sampling(max_tokens=4), "options": OPTIONS, **settings}
    return BatchPrompt(model, ASKED, **settings), model


def numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def answers(result: BatchResult) -> list[str | None]:
    return [one.answer for one in result.answers]


# --- the rounds -------------------------------------------------------------------------------------------------------


def test_many_items_share_a_prompt_and_come_back_in_their_order() -> None:
    method, model = ask(right, batch_size=8)
    outcome = method.task(numbers(20)).run()
    assert answers(outcome.value) == [is_even(n) for n in numbers(20)]
    assert outcome.text.splitlines()[:2] == ["1: yes", "2: no"] and outcome.degraded == ()
    assert max(len(items_of(request)) for request in model.prompts) <= 8


def test_an_item_stops_after_two_sure_and_equal_answers() -> None:
    method, model = ask(right, rounds=9)
    result = method.task(numbers(6)).run().value
    assert len(model.prompts) == 2 and {one.rounds for one in result.answers} == {2}
    assert {one.confidence for one in result.answers} == {1.0}


def test_without_being_sure_it_goes_on_until_the_majority_cannot_change() -> None:
    method, model = ask(unsure, rounds=9)
    result = method.task(numbers(6)).run().value
    assert len(model.prompts) == 5 and {one.confidence for one in result.answers} == {0.0}


def test_the_order_changes_from_round_to_round_and_not_from_run_to_run() -> None:
    seen = []
    for seed in (0, 0, 1):
        method, model = ask(unsure, rounds=3, seed=seed)
        method.task(numbers(12)).run()
        seen.append([[text for _, text in items_of(request)] for request in model.prompts])
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][0] == numbers(12) != seen[0][1] and sorted(seen[0][1]) == sorted(numbers(12))


def test_a_majority_over_orders_undoes_what_a_place_in_the_batch_does() -> None:
    texts = numbers(12)
    method, _ = ask(by_place, rounds=1)
    once = answers(method.task(texts).run().value)
    method, _ = ask(by_place, rounds=7)
    voted = answers(method.task(texts).run().value)
    assert once != [is_even(n) for n in texts] and voted == [is_even(n) for n in texts]


def test_a_model_that_is_always_wrong_is_believed() -> None:
    method, _ = ask(lambda request: right(request).replace("yes", "x").replace("no", "yes").replace("x", "no"))
    assert answers(method.task(numbers(4)).run().value) == ["no", "yes", "no", "yes"]


def test_what_is_missing_is_asked_again_and_at_last_alone() -> None:
    def forgets(request: Request) -> str:
        lines = right(request).splitlines()
        return "\n".join(line for line, (_, text) in zip(lines, items_of(request), strict=True) if text != "3") or "odd"

    def alone(request: Request) -> str:
        return "I would say no" if len(items_of(request)) == 1 else forgets(request)

    method, model = ask(alone, rounds=3)
    outcome = method.task(numbers(5)).run()
    assert answers(outcome.value) == ["yes", "no", "yes", "no", "yes"]
    assert [len(items_of(request)) for request in model.prompts] == [5, 5, 1]
    assert "1 of 5 items had no answer: 4" in outcome.degraded[0]


def test_a_model_that_never_keeps_to_the_form_is_asked_alone_after_one_round() -> None:
    method, model = ask(lambda request: f"I think {is_even(items_of(request)[0][1])}.", rounds=5)
    result = method.task(numbers(3)).run().value
    assert [len(items_of(request)) for request in model.prompts] == [3, 1, 1, 1]
    assert answers(result) == ["yes", "no", "yes"]


def test_an_item_that_never_gets_an_answer_has_a_note() -> None:
    method, _ = ask(lambda request: "\n".join(f"{n}: {'maybe' if t == '1' else 'yes'}" for n, t in items_of(request)))
    result = method.task(numbers(3)).run().value
    assert answers(result) == ["yes", None, "yes"] and result.answers[1].note == "unanswered"
    assert "2: (unanswered)" in result.text


def test_the_last_line_of_an_answer_that_was_cut_off_is_not_read() -> None:
    cut = ScriptedModel(lambda request: "1: yes | sure\n2: no one" if len(items_of(request)) == 2 else "no")
    method = BatchPrompt(cut, ASKED, OPTIONS, rounds=1, sampling=Sampling(max_tokens=3))
    assert answers(method.task(["0", "1"]).run().value) == ["yes", "no"]
    assert len(cut.prompts) == 2  # the second item was asked again, alone


def test_a_free_answer_needs_no_options() -> None:
    method, _ = ask(lambda request: "\n".join(f"{n}: {t.upper()} | sure" for n, t in items_of(request)), options=())
    assert answers(method.task(["a b", "c"]).run().value) == ["a b", "c"]


def test_the_form_of_a_constrained_answer_is_what_is_read() -> None:
    method, _ = ask(right, options=("yes", "no (never)"))
    said = "1: no (never) | sure\n2: yes | unsure"
    assert re.fullmatch(method.form(2), said) and not re.fullmatch(method.form(2), said + "\n3: yes | sure")
    assert method.read(said, 2) == {1: ("no (never)", True), 2: ("yes", False)}
    free, _ = ask(right, options=(), confidence=False)
    assert re.fullmatch(free.form(1), "1: any text") and not re.fullmatch(free.form(1), "1: two\nlines")


def test_only_a_constrained_batch_sends_its_form() -> None:
    forms = []

    class Watching(ScriptedModel):
        def _answer(self, prompt: Any, sampling: Sampling) -> Any:
            forms.append(sampling.response_format)
            return super()._answer(prompt, sampling)

    for constrained in (False, True):
        BatchPrompt(Watching(right), ASKED, OPTIONS, rounds=1, constrained=constrained).task(numbers(2)).run()
    assert forms == [None, {"type": "regex", "regex": ask(right)[0].form(2)}]


# --- windows and budgets ----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=25),
    st.integers(45, 160),
    st.one_of(st.none(), st.integers(0, 900)),
    st.sampled_from([right, unsure, by_place, lambda request: "", lambda request: "1: yes\n1: no\n2 - no"]),
)
def test_no_prompt_is_over_the_window_and_every_item_has_an_answer_or_a_note(
    lengths: list[int], window: int, tokens: int | None, answer: Callable[[Request], str]
) -> None:
    model = ScriptedModel(answer, window_tokens=window)  # raises PromptError where prompt and answer are over it
    method = BatchPrompt(model, ASKED, OPTIONS, rounds=3, batch_size=8, sampling=Sampling(max_tokens=4))
    texts = [" ".join([str(n), *["word"] * length]) for n, length in enumerate(lengths)]
    run = Run(Limits(tokens=tokens))
    try:
        result = method.task(texts).run(paid_by=run).value
    except (BudgetOverdrawn, BudgetInfeasible, AnswerMalformed):
        result = None
    assert tokens is None or run.spent.tokens <= tokens
    assert run.report().overdrawn.tokens == 0
    if result is not None:
        assert [one.item for one in result.answers] == list(range(len(texts)))
        assert all((one.answer in OPTIONS) == (one.note == "answered") for one in result.answers)


def test_batches_are_as_large_as_the_window_holds() -> None:
    method, model = ask(right, window=80, rounds=1, batch_size=32)
    method.task(numbers(20)).run()
    sizes = [len(items_of(request)) for request in model.prompts]
    room = [
        80 - len(request.messages[-1].content.split()) - 4 * n for request, n in zip(model.prompts, sizes, strict=True)
    ]
    assert sum(sizes) == 20 and len(sizes) > 1
    assert all(one < 12 for one in room[:-1])  # one item more takes 2 tokens of prompt and 4 of answer


def test_batches_are_even() -> None:
    method, model = ask(right, rounds=1, batch_size=32)
    method.task(numbers(33)).run()
    assert [len(items_of(request)) for request in model.prompts] == [17, 16]


def test_an_item_longer_than_the_window_has_a_note_and_the_others_an_answer() -> None:
    method, _ = ask(right, window=60)
    outcome = method.task(["1", "2 " + "word " * 80, "3"]).run()
    assert [one.note for one in outcome.value.answers] == ["answered", "too long", "answered"]
    assert "item 2 is left out" in outcome.degraded[0]


def test_where_no_item_fits_the_window_the_smallest_that_would_is_said() -> None:
    method, _ = ask(right, window=60)
    with pytest.raises(BudgetInfeasible) as caught:
        method.task(["2 " + "word " * 80]).run()
    assert caught.value.minimum > 60


def test_what_the_run_cannot_pay_has_a_note() -> None:
    method, _ = ask(right, batch_size=4, rounds=5)
    outcome = method.task(numbers(16)).run(paid_by=Limits(tokens=160))
    notes = [one.note for one in outcome.value.answers]
    assert notes[:4] == ["answered"] * 4 and notes[-1] == "not paid" and outcome.spent.tokens <= 160
    assert any("cannot pay for" in said for said in outcome.degraded)


def test_a_run_that_cannot_pay_for_one_item_is_refused() -> None:
    method, model = ask(right)
    with pytest.raises(BudgetOverdrawn, match="cannot pay for one item"):
        method.task(numbers(3)).run(paid_by=Limits(tokens=10))
    assert model.prompts == []


def test_it_says_what_asking_one_by_one_would_have_cost() -> None:
    method, _ = ask(right, rounds=2)
    result = method.task(numbers(30)).run().value
    one_by_one = [method.prompt([text]) for text in numbers(30)]
    model = ScriptedModel(right)
    replies = [model.generate(prompt, Sampling(max_tokens=4)) for prompt in one_by_one]
    assert result.alone_tokens_in == sum(reply.prompt_tokens for reply in replies)
    assert result.alone_tokens_out == sum(reply.completion_tokens for reply in replies)
    assert result.share_of_tokens < 0.5


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_batch_that_fails_is_asked_in_the_next_round() -> None:
    failing = iter([ModelError("busy")])

    def sometimes(request: Request) -> Any:
        return next(failing, None) or right(request)

    method, _ = ask(sometimes, batch_size=2, rounds=3, at_once=1)
    outcome = method.task(numbers(4)).run()
    assert answers(outcome.value) == ["yes", "no", "yes", "no"] and "ModelError: busy" in outcome.degraded[0]


def test_a_model_that_only_fails_is_given_up_after_one_round() -> None:
    method, model = ask(lambda request: ModelError("down"), batch_size=2, rounds=5)
    with pytest.raises(ModelError, match="down"):
        method.task(numbers(6)).run()
    assert len(model.prompts) == 3


def test_a_model_that_fails_later_leaves_what_there_is() -> None:
    method, model = ask(lambda r: right(r) if len(model.prompts) == 1 else ModelError("down"), rounds=5)
    outcome = method.task(numbers(3)).run()
    assert answers(outcome.value) == ["yes", "no", "yes"] and len(model.prompts) == 2 and outcome.degraded


def test_answers_that_nobody_can_read_are_malformed() -> None:
    method, _ = ask(lambda request: "Certainly!")
    with pytest.raises(AnswerMalformed, match="any of 3 items"):
        method.task(numbers(3)).run()


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"batch_size": 0}, {"at_once": 0}, {"options": ("yes",)}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ask(right, **wrong)


@pytest.mark.parametrize("items", [[], ["1", " "], "12"])
def test_items_that_are_none_are_refused(items: Any) -> None:
    with pytest.raises(ValueError, match="item"):
        ask(right)[0].task(items)


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction"):
        BatchPrompt(ScriptedModel([]), " ")


def test_a_batch_run_goes_on_where_it_died_also_after_a_failure(tmp_path: Path) -> None:
    class Died(BaseException):
        """The process ends."""

    state = {"calls": 0}

    def dying(request: Request) -> Any:
        state["calls"] += 1
        if state["calls"] == 2:
            return ModelError("busy")
        if state["calls"] == 4:
            raise Died
        return right(request)

    method, _ = ask(dying, batch_size=2, rounds=2, at_once=1)
    with pytest.raises(Died):
        method.task(numbers(6)).run(checkpoint=tmp_path / "batch.db")
    outcome = method.task(numbers(6)).run(checkpoint=tmp_path / "batch.db")
    assert answers(outcome.value) == [is_even(n) for n in numbers(6)]
    assert outcome.paid.calls < outcome.spent.calls


# --- numbered lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2: yes", {2: "yes"}),
        ("[2] yes", {2: "yes"}),
        ("  2. yes | sure ", {2: "yes | sure"}),
        ("**2**: yes", {2: "yes"}),
        ("2) -5", {2: "-5"}),
        ("2: -5", {2: "-5"}),
        ("2 of them are even", {}),
        ("2.5: yes", {}),
        ("9: yes", {}),
        ("0: yes", {}),
        ("2:", {}),
    ],
)
def test_a_numbered_line_is_read(line: str, said: dict[int, str]) -> None:
    assert numbered_lines(f"Here:\n{line}\nDone.", 3) == said


def test_a_number_said_twice_counts_only_where_both_say_the_same() -> None:
    assert numbered_lines("1: a\n1: a\n2: a\n2: b", 2) == {1: "a"}


@given(st.lists(st.text(alphabet="ab\n[]1: ", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=5))
def test_no_item_can_look_like_another_one(items: list[str]) -> None:
    starts = [line for line in numbered(items).splitlines() if re.match(r"\[\d+\] ", line)]
    assert [line.partition(" ")[0] for line in starts] == [f"[{n}]" for n in range(1, len(items) + 1)]


def test_the_same_batches_are_asked_whatever_the_random_state_is() -> None:
    seen = []
    for state in (1, 2):
        random.seed(state)
        method, model = ask(unsure, rounds=3)
        method.task(numbers(9)).run()
        seen.append([request.messages[-1].content for request in model.prompts])
    assert seen[0] == seen[1]
