"""Jury: votes of judges by rubrics, in both orders, and what happens to judges that fail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits
from ctxkit.errors import BudgetOverdrawn, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.jury import Jury
from ctxkit_agents.rubrics import DIALOGUE_ACTS, MAXIMS, PREFERENCE, Rubric

GOOD, BAD = "Use a list: it is ordered.", "No idea, ask someone else about that."
TALK = [
    {"role": "user", "content": "I want to keep things in order."},
    {"role": "assistant", "content": "Use a set."},
    {"role": "user", "content": "But a set has no order."},
]


def shown(request: Request) -> list[str]:
    """The answers that the judge sees, A first."""
    asked = request.messages[-1].content if len(request.messages) < 4 else request.messages[1].content
    return re.findall(r"^Answer(?: [AB])?:\n(.*)$", asked, re.MULTILINE)


def verdict(**fields: Any) -> str:
    return json.dumps({"reason": "it is so", **fields})


def fair(request: Request) -> str:
    """Prefers GOOD, wherever it stands; likes what is short."""
    answers = shown(request)
    if len(answers) == 1:
        return verdict(score=9 if answers[0] == GOOD else 2)
    return verdict(winner="tie" if answers[0] == answers[1] else "AB"[answers.index(GOOD)])


def first(request: Request) -> str:
    """Prefers what stands first."""
    return verdict(winner="A")


def contrary(request: Request) -> str:
    return fair(request).replace('"A"', '"C"').replace('"B"', '"A"').replace('"C"', '"B"')


def judge(answer: Callable[[Request], Any], name: str = "judge") -> ScriptedModel:
    return ScriptedModel(answer, name=name)


# --- pairwise ---------------------------------------------------------------------------------------------------------


def test_the_better_response_wins_and_every_judge_has_a_vote_per_rubric() -> None:
    outcome = Jury([judge(fair, "one"), judge(fair, "two")]).task(TALK, [BAD, GOOD]).run()
    result = outcome.value
    assert (result.winner, result.scores, result.agreement) == (1, (0.0, 1.0), 1.0) and outcome.text == GOOD
    assert [(one.model, one.rubric) for one in result.opinions] == [
        (model, rubric) for model in ("one", "two") for rubric in ("dialogue-acts", "maxims", "preference")
    ]
    assert outcome.spent.calls == 2 * 3 * 2 and {one.reason for one in result.opinions} == {"it is so"}


def test_a_judge_that_favours_a_place_has_voted_for_a_tie() -> None:
    result = Jury([judge(first), judge(fair)], [PREFERENCE]).task("How?", [BAD, GOOD]).run().value
    assert [one.swayed for one in result.opinions] == [True, False]
    assert (result.winner, result.scores, result.agreement) == (1, (0.25, 0.75), 0.5)


def test_without_the_swap_a_favoured_place_wins() -> None:
    outcome = Jury(judge(first), [PREFERENCE], swap=False).task("How?", [BAD, GOOD]).run()
    assert outcome.value.winner == 0 and outcome.spent.calls == 1


def test_judges_that_contradict_each_other_are_a_tie() -> None:
    result = Jury([judge(fair), judge(contrary)], [PREFERENCE]).task("How?", [GOOD, BAD]).run().value
    assert (result.winner, result.scores, result.agreement, result.text) == (None, (0.5, 0.5), 0.0, GOOD)


def test_equal_responses_are_a_tie_that_all_agree_on() -> None:
    result = Jury(judge(fair), [PREFERENCE]).task("How?", [GOOD, GOOD]).run().value
    assert (result.winner, result.agreement) == (None, 1.0) and not result.opinions[0].swayed


def test_of_several_the_one_that_wins_most_comparisons_is_best() -> None:
    ranks = {"gold": 3, "silver": 2, "lead": 1}

    def ranked(request: Request) -> str:
        a, b = shown(request)
        return verdict(winner="A" if ranks[a] > ranks[b] else "B")

    result = Jury(judge(ranked), [PREFERENCE]).task("Which metal?", ["silver", "lead", "gold"]).run().value
    assert (result.winner, result.scores, result.text) == (2, (0.5, 0.0, 1.0), "gold")


@settings(max_examples=15)
@given(st.permutations([GOOD, BAD]), st.lists(st.sampled_from([fair, first, contrary]), min_size=1, max_size=3))
def test_the_verdict_does_not_depend_on_the_order_of_responses_or_judges(order: list[str], kinds: list[Any]) -> None:
    result = Jury([judge(kind) for kind in kinds], [PREFERENCE]).task("How?", order).run().value
    other = Jury([judge(kind) for kind in reversed(kinds)], [PREFERENCE]).task("How?", order[::-1]).run().value
    assert dict(zip(order, result.scores, strict=True)) == pytest.approx(
        dict(zip(order[::-1], other.scores, strict=True))
    )
    assert sum(result.scores) == pytest.approx(1.0)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_a_response_alone_gets_points() -> None:
    outcome = (
        Jury([judge(fair), judge(lambda _: verdict(score="6/10"))], [MAXIMS], form="score").task("?", [GOOD]).run()
    )
    assert (outcome.value.scores, outcome.text) == ((7.5,), "7.5")
    assert outcome.value.agreement == pytest.approx(1 - 3 / 9)


def test_the_response_with_most_points_wins() -> None:
    result = Jury(judge(fair), form="score").task(TALK, [BAD, GOOD]).run().value
    assert (result.winner, result.scores, result.agreement) == (1, (2.0, 9.0), 1.0)


# --- the prompt -------------------------------------------------------------------------------------------------------


def test_a_judge_sees_the_rubric_the_conversation_and_both_answers() -> None:
    model = judge(fair)
    Jury(model, [MAXIMS]).task(TALK, [GOOD, BAD]).run()
    system, user = (message.content for message in model.prompts[0].messages)
    assert "quantity: says less than is needed" in system
    assert "turn 3, user\nBut a set has no order." in user and shown(model.prompts[0]) == [GOOD, BAD]
    assert shown(model.prompts[1]) == [BAD, GOOD]


def test_labels_are_kept_where_the_rubric_knows_them_and_named_by_response() -> None:
    def labelled(request: Request) -> str:
        return verdict(notes={"A": ["quality", "colour"], "B": "manner"}, winner="B")

    (opinion,) = Jury(judge(labelled), [MAXIMS], swap=False).task("How?", [BAD, GOOD]).run().value.opinions
    assert opinion.notes == {"response 0": ("quality",), "response 1": ("manner",)}


def test_what_is_no_object_of_labels_counts_for_nothing() -> None:
    (opinion,) = (
        Jury(judge(lambda _: verdict(notes="none", winner="A")), [DIALOGUE_ACTS], swap=False)
        .task(TALK, [GOOD, BAD])
        .run()
        .value.opinions
    )
    assert opinion.notes == {} and opinion.winner == 0


def test_a_long_conversation_loses_its_oldest_turns_and_says_so() -> None:
    talk = [{"role": "user", "content": f"turn number {n} " + "word " * 20} for n in range(20)]
    model = ScriptedModel(fair, window_tokens=300)
    outcome = Jury(model, [PREFERENCE], sampling=Sampling(max_tokens=30)).task(talk, [GOOD, BAD]).run()
    seen = re.findall(r"turn number (\d+)", model.prompts[0].messages[-1].content)
    assert outcome.value.winner == 0 and seen and seen == [str(n) for n in range(20 - len(seen), 20)]
    assert f"without {20 - len(seen)} of its 20 turns" in outcome.degraded[0]


def test_a_constrained_judge_is_given_the_schema_of_its_form() -> None:
    forms = []

    class Watching(ScriptedModel):
        def _answer(self, prompt: Any, sampling: Sampling) -> Any:
            forms.append(sampling.response_format)
            return super()._answer(prompt, sampling)

    Jury(Watching(fair), [DIALOGUE_ACTS, PREFERENCE], swap=False, constrained=True).task(TALK, [GOOD, BAD]).run()
    acts, plain = (form["json_schema"]["schema"]["properties"] for form in forms)
    assert list(acts["notes"]["properties"]) == ["turn 1", "turn 3"]
    assert list(plain) == ["reason", "winner"] and plain["winner"] == {"enum": ["A", "B", "tie"]}


# --- faults -----------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_no_json_is_asked_for_once_more() -> None:
    model = judge(lambda request: fair(request) if len(request.messages) == 4 else "I prefer the list.")
    outcome = Jury(model, [PREFERENCE], swap=False).task("How?", [GOOD, BAD]).run()
    assert outcome.value.winner == 0 and outcome.spent.calls == 2
    assert 'no JSON object with "winner"' in model.prompts[1].messages[-1].content


@pytest.mark.parametrize("said", ["", "no", verdict(winner="C"), verdict(score=9), "[1, 2]"])
def test_a_judge_that_does_not_answer_in_the_form_is_left_out(said: str) -> None:
    outcome = Jury([judge(lambda _: said), judge(fair)], [PREFERENCE]).task("How?", [GOOD, BAD]).run()
    assert outcome.value.winner == 0 and [one.judge for one in outcome.value.opinions] == [1]
    assert "AnswerMalformed" in outcome.degraded[0]


@pytest.mark.parametrize("said", [0, 11, "many", None, True])
def test_points_outside_the_scale_are_malformed(said: Any) -> None:
    with pytest.raises(AnswerMalformed, match="from 1 to 10"):
        Jury(judge(lambda _: verdict(score=said)), [PREFERENCE], form="score").task("How?", [GOOD]).run()


def test_a_judge_that_fails_is_left_out_and_a_jury_of_failures_raises() -> None:
    outcome = Jury([judge(lambda _: ModelError("down")), judge(fair)], [PREFERENCE]).task("?", [GOOD, BAD]).run()
    assert outcome.value.winner == 0 and "ModelError: down" in outcome.degraded[0]
    with pytest.raises(ModelError, match="down"):
        Jury(judge(lambda _: ModelError("down"))).task("?", [GOOD, BAD]).run()


def test_one_order_alone_counts_where_the_other_failed() -> None:
    said = iter([verdict(winner="A")])
    model = judge(lambda _: next(said, ModelError("gone")))
    result = Jury(model, [PREFERENCE], at_once=1).task("?", [GOOD, BAD]).run().value
    assert result.winner == 0 and len(result.opinions) == 1


def test_a_jury_judges_as_far_as_the_run_can_pay() -> None:
    jury = Jury([judge(fair)] * 3, [PREFERENCE], sampling=Sampling(max_tokens=10))
    outcome = jury.task("How?", [GOOD, BAD]).run(paid_by=Limits(tokens=300))
    assert outcome.spent.tokens <= 300 and 1 <= len(outcome.value.opinions) < 3
    assert any("Overdrawn" in said or "Infeasible" in said for said in outcome.degraded)
    with pytest.raises(BudgetOverdrawn):
        jury.task("How?", [GOOD, BAD]).run(paid_by=Limits(calls=0))


@pytest.mark.parametrize(
    "wrong",
    [{"judges": []}, {"rubrics": []}, {"rubrics": [MAXIMS, MAXIMS]}, {"form": "poll"}, {"at_once": 0}],
)
def test_a_jury_of_nobody_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="jury|rubrics|form"):
        Jury(**{"judges": judge(fair), **wrong})


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        Jury(judge(fair)).task("How?", [GOOD])
    with pytest.raises(ValueError, match="conversation"):
        Jury(judge(fair)).task(" ", [GOOD, BAD])
    with pytest.raises(ValueError, match="rubric"):
        Rubric("a/b", "Judge.")
