"""Debates in text: rounds, agreement, who is left out, and whose answer it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ctxkit.context import Limits
from ctxkit.errors import BudgetOverdrawn, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import AsyncTextStream, Model, Reply, Sampling
from ctxkit.testing import ScriptedModel
from ctxkit_agents.debate.answers import final_answer, last_number
from ctxkit_agents.debate.text_debate import TextDebate
from ctxkit_agents.errors import NoAnswer
from ctxkit_agents.runtime.task import Outcome

QUESTION = "How many legs have two spiders?"


def asked(request: Request) -> str:
    return request.messages[-1].content


def stubborn(answer: str) -> ScriptedModel:
    return ScriptedModel(lambda request: f"I count them.\n{answer}", name=f"says {answer}")


def open_to(answer: str, better: str) -> ScriptedModel:
    """Says `answer` until another agent has said `better`."""

    def reply(request: Request) -> str:
        return f"So be it.\n{better}" if f"\n{better}\n" in asked(request) else f"I guess.\n{answer}"

    return ScriptedModel(reply, name="open")


def debate(*models: Model, **settings: object) -> TextDebate:
    given = {"temperatures": [0.1 * n for n in range(len(models))], "max_tokens": 20, **settings}
    return TextDebate(list(models), **given)  # type: ignore[arg-type]


def test_agents_read_what_the_others_said_and_may_change_their_minds() -> None:
    wrong, right = open_to("8", better="16"), stubborn("16")
    outcome = debate(wrong, right).task(QUESTION).run()
    assert outcome.text == "So be it.\n16" and outcome.value.answer == "16" and outcome.value.agent == 1
    assert outcome.value.agreed and len(outcome.value.rounds) == 2
    second = asked(wrong.prompts[1])
    assert "[1] Your answer before\nI guess.\n8" in second and "[2] The answer of agent 2\nI count them.\n16" in second
    assert second.startswith(QUESTION)


def test_a_debate_ends_when_all_agree_and_after_its_rounds_when_they_do_not() -> None:
    agreeing = debate(stubborn("16"), stubborn("16.0")).task(QUESTION).run()
    assert agreeing.value.agreed and agreeing.spent.calls == 2
    quarrel = debate(stubborn("16"), stubborn("8"), rounds=4).task(QUESTION).run()
    assert not quarrel.value.agreed and quarrel.spent.calls == 8 and len(quarrel.value.rounds) == 4


def test_answers_that_hold_nothing_are_no_agreement() -> None:
    outcome = debate(stubborn("1"), stubborn("2"), answer=lambda text: "", rounds=2).task(QUESTION).run()
    assert not outcome.value.agreed and len(outcome.value.rounds) == 2


def test_the_answer_is_the_sharpest_agents_or_that_of_most() -> None:
    models = (stubborn("8"), stubborn("16"), stubborn("16"))
    assert debate(*models, rounds=1).task(QUESTION).run().value.answer == "8"
    assert debate(*models, rounds=1, temperatures=[1.0, 0.5, 0.2]).task(QUESTION).run().value.agent == 3
    voted = debate(*models, rounds=1, answer_by="vote").task(QUESTION).run().value
    assert voted.answer == "16" and voted.agent == 2
    tie = debate(*models[:2], rounds=1, answer_by="vote", temperatures=[0.9, 0.1]).task(QUESTION).run().value
    assert tie.agent == 2


def test_one_model_can_be_all_agents_and_each_answer_has_its_own_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seeds = ScriptedModel(lambda request: "1 or 2"), []
    stream = model.astream

    def astream(prompt: Request, sampling: Sampling) -> AsyncTextStream:
        seeds.append(sampling.seed)
        return stream(prompt, sampling)

    monkeypatch.setattr(model, "astream", astream)
    TextDebate(model, temperatures=(0.2, 0.9), rounds=2, max_tokens=9, seed=10, answer=lambda text: "").task("?").run()
    assert sorted(seeds) == [10, 11, 12, 13]


def test_each_turn_is_a_job_with_its_own_account() -> None:
    outcome = debate(stubborn("16"), stubborn("8"), rounds=2).task(QUESTION).run(paid_by=Limits(tokens=2000))
    names = sorted(child.name for child in outcome.trace.roots[0].children)
    assert names == [f"round-{n}.agent-{m}" for n in (1, 2) for m in (1, 2)]
    assert all(child.closed and child.spent.calls == 1 for child in outcome.report.children)
    assert not outcome.degraded


@pytest.mark.parametrize("fault", [ModelError("down"), "", "  \n"])
def test_an_agent_that_fails_or_says_nothing_is_left_out_of_the_round(fault: str | Exception) -> None:
    replies: list[str | Exception] = [fault, "Back.\n8"]
    outcome = debate(ScriptedModel(replies), stubborn("16"), rounds=2).task(QUESTION).run()
    assert [[one.agent for one in said] for said in outcome.value.rounds] == [[2], [1, 2]]
    assert outcome.value.answer == "8" and not outcome.value.agreed
    assert len(outcome.degraded) == 1 and "agent 1 is left out of round 1" in outcome.degraded[0]


def test_what_an_agent_said_before_it_failed_still_stands() -> None:
    other = stubborn("16")
    outcome = debate(ScriptedModel(["Mine.\n8"]), other, rounds=3).task(QUESTION).run()
    assert outcome.value.answer == "8" and len(outcome.value.rounds) == 3
    assert "Mine.\n8" in asked(other.prompts[2]) and len(outcome.degraded) == 2


def test_where_the_sharpest_never_answers_the_next_does_and_the_run_says_so() -> None:
    outcome = debate(ScriptedModel(lambda request: ""), stubborn("16"), rounds=1).task(QUESTION).run()
    assert outcome.value.agent == 2 and "whose answer it should be" in outcome.degraded[-1]


def test_where_nobody_answers_it_is_a_typed_error_with_the_reasons() -> None:
    with pytest.raises(NoAnswer, match=r"agent 1 .* answered nothing; agent 2 .* ModelError: down"):
        debate(ScriptedModel([""]), ScriptedModel([ModelError("down")])).task(QUESTION).run()


def test_a_round_in_which_nobody_answers_ends_the_debate_with_what_was_said() -> None:
    outcome = debate(ScriptedModel(["8"]), ScriptedModel(["16"])).task(QUESTION).run()
    assert outcome.value.answer == "8" and len(outcome.value.rounds) == 1
    assert "nobody answered in round 2" in outcome.degraded[-1]


class SilentStream:
    """An answer that never comes."""

    reply = Reply("", "cancelled", 0, 0, "silent")

    async def __aiter__(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def aclose(self) -> None:
        """Nothing is open."""


def test_a_late_agent_is_left_out() -> None:
    silent = ScriptedModel([])
    silent.astream = lambda prompt, sampling: SilentStream()  # type: ignore[assignment, method-assign, return-value]
    outcome = debate(silent, ScriptedModel(["16"]), rounds=1, timeout_seconds=0.5).task(QUESTION).run()
    assert outcome.value.agent == 2 and "CallTimeout" in outcome.degraded[0]


def test_a_budget_that_ends_in_the_first_round_is_refused_and_in_a_later_one_ends_the_debate() -> None:
    task = debate(stubborn("16"), stubborn("8"), at_once=1).task(QUESTION)
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(calls=1))
    for calls in (2, 3):
        outcome = task.run(paid_by=Limits(calls=calls))
        assert outcome.value.answer == "16" and len(outcome.value.rounds) == 1
        assert "the budget ended in round 2" in outcome.degraded[-1] and outcome.spent.calls <= calls


@pytest.mark.parametrize("tokens", range(0, 400, 17))
def test_a_budget_is_never_exceeded(tokens: int) -> None:
    task = debate(stubborn("16"), stubborn("8"), stubborn("4")).task(QUESTION)
    try:
        assert task.run(paid_by=Limits(tokens=tokens)).spent.tokens <= tokens
    except BudgetOverdrawn:
        assert tokens < 200


def long_winded(answer: str, words: int) -> ScriptedModel:
    text = " ".join(f"Then comes thing {n}." for n in range(words // 4)) + f"\n{answer}"
    return ScriptedModel(lambda request: text, window_tokens=300, name=f"long {answer}")


def test_in_a_small_window_the_others_are_shortened_before_ones_own_answer_and_no_prompt_is_too_long() -> None:
    models = [long_winded(str(n), 100) for n in range(3)]
    outcome = debate(*models, rounds=2, max_tokens=120).task(QUESTION).run()
    own = "Then comes thing 12."
    for model in models:
        prompt = asked(model.prompts[1])
        assert model.counter.render(model.prompts[1].messages).tokens + 120 <= 300
        mine = prompt.split("[1] Your answer before\n")[1].split("\n\n[2]")[0]
        assert own in mine and len(mine.split()) == 101
    assert len(outcome.degraded) == 3 and "there is room for" in outcome.degraded[0]


def test_a_debate_that_died_goes_on_without_paying_twice(tmp_path: Path) -> None:
    path = tmp_path / "debate"
    task = debate(stubborn("16"), stubborn("8"), rounds=2, at_once=1).task(QUESTION)
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(calls=1), checkpoint=path)
    whole = task.run(checkpoint=path)
    assert whole.spent.calls == 4 and whole.paid.calls == 3
    again = task.run(checkpoint=path)
    assert again.paid.calls == 0 and again.value == whole.value and again.spent == whole.spent


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperatures": [0.5]}, "two agents"),
        ({"temperatures": [0.5, 0.1, 0.2]}, "one for each of the 3"),
        ({"temperatures": [0.5, -0.1]}, "temperature"),
        ({"rounds": 0}, "rounds"),
        ({"answer_by": "chance"}, "chance"),
        ({"max_tokens": 8192}, "leaves nothing"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_a_debate_that_cannot_be_held_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        debate(stubborn("1"), stubborn("2"), **settings)


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(ValueError, match="question"):
        debate(stubborn("1"), stubborn("2")).task(" \n")


@pytest.mark.parametrize(
    ("find", "text", "answer"),
    [
        (final_answer, "", ""),
        (final_answer, "It was 1889.\n\n**Paris!**\n", "paris"),
        (final_answer, "Answer: $1,200.50 a year", "1200.5"),
        (final_answer, "x\n-3", "-3"),
        (last_number, "7 of 10.", "10"),
        (last_number, "100.00", "100"),
        (last_number, "none", ""),
        (last_number, "it costs .5", "0.5"),
    ],
)
def test_equal_answers_are_equal_strings(find: Callable[[str], str], text: str, answer: str) -> None:
    assert find(text) == answer


def test_the_text_of_an_outcome_is_the_answer() -> None:
    outcome: Outcome[object] = debate(stubborn("16"), stubborn("16")).task(QUESTION).run()
    assert str(outcome) == "I count them.\n16" and outcome.to_dict()["text"] == outcome.text
