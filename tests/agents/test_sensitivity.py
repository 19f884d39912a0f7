"""Prompt sensitivity: the formula by hand, the formula on a real model, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit import Sampling
from ctxkit.compression.distortion import sensitivity
from ctxkit.context import Limits
from ctxkit.errors import BudgetOverdrawn
from ctxkit.testing import ScriptedModel, tiny_counter, tiny_model
from ctxkit_agents.errors import AnswerMalformed, CapabilityMissing
from ctxkit_agents.sensitivity import PromptSensitivity, prompt_sensitivity

SETS = [["Where is it?", "In which place is it?"], ["Who came?", "Who was there?", "Name who came."]]


class Graded(ScriptedModel):
    """Answers with the prompt's first word; every token of an answer is worth minus the length of the prompt."""

    capabilities = frozenset({"score"})

    def __init__(self) -> None:
        super().__init__(lambda request: request.messages[-1].content.split()[0], counter=tiny_counter())

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray:
        return np.full(len(continuation_ids), -float(len(prompt_ids)), np.float32)


def test_the_index_is_the_mean_shift_per_token_between_prompts() -> None:
    value = prompt_sensitivity(Graded(), SETS)
    counter = tiny_counter()

    def apart(left: str, right: str) -> int:
        return abs(counter.count(left) - counter.count(right))

    two, three = SETS
    first = apart(*two)
    second = (apart(three[0], three[1]) + apart(three[0], three[2]) + apart(three[1], three[2])) / 3
    assert [one.psi for one in value.sets] == pytest.approx([first, second])
    assert value.posix == pytest.approx((first + second) / 2)
    assert {value.worst.asked, value.worst.answered} == set(two) and value.worst.shift == first
    assert value.sets[0].answers == ("Where", "In")


@given(st.lists(st.floats(-9, 0), min_size=2, max_size=5))
def test_where_prompts_do_not_matter_the_index_is_zero(row: list[float]) -> None:
    assert sensitivity([row] * len(row)) == 0


def test_fewer_than_two_prompts_have_no_sensitivity() -> None:
    with pytest.raises(ValueError, match="two or more"):
        sensitivity([[0.0]])


def test_on_a_real_model_it_is_the_formula_of_the_paper() -> None:
    model = tiny_model()
    prompts, answers = SETS[0], ["the sea", "a"]
    value = prompt_sensitivity(model, [prompts], [answers])
    ids = [model.counter.as_text().locate(answer).ids for answer in answers]
    log_p = [[float(model.score(model.prompt_ids(prompt), own).sum()) for own in ids] for prompt in prompts]
    shifts = [abs(log_p[i][j] - log_p[j][j]) / len(ids[j]) for i, j in ((0, 1), (1, 0))]
    assert value.posix == pytest.approx(sum(shifts) / 2, abs=1e-4) and value.posix > 0
    assert value.tokens_read < value.naive_tokens


def test_one_answer_can_serve_all_prompts_of_a_set() -> None:
    model = Graded()
    value = prompt_sensitivity(model, SETS, ["There.", ["A.", "B.", "C."]])
    assert value.sets[0].answers == ("There.", "There.") and model.prompts == []


def test_answers_and_scores_are_paid_for() -> None:
    task = PromptSensitivity(Graded(), Sampling(max_tokens=4)).task(SETS[:1])
    outcome = task.run()
    assert outcome.spent.calls == 2 + 4
    assert outcome.spent.tokens_in > outcome.value.tokens_read
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(calls=5))


def test_it_is_shown_as_a_table() -> None:
    value = prompt_sensitivity(Graded(), [["<b>?", "What is that in bold?"]])
    assert "POSIX" in str(value) and "furthest apart" in str(value)
    assert "&lt;b&gt;" in value._repr_html_() and "<b>?" not in value._repr_html_()
    assert value.to_dict()["sets"][0]["psi"] == value.posix


@pytest.mark.parametrize(
    ("sets", "answers", "said"),
    [
        ([], None, "empty"),
        ([["one"]], None, "two or more"),
        (["one prompt"], None, "two or more"),
        (SETS, ["a"], "one entry for each"),
        (SETS[:1], [["a"]], "1 answers"),
    ],
)
def test_sets_and_answers_that_do_not_match_are_refused(sets: Any, answers: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PromptSensitivity(Graded()).task(sets, answers=answers)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(CapabilityMissing, match="score"):
        prompt_sensitivity(ScriptedModel(["a"]), SETS)
    with pytest.raises(AnswerMalformed, match="empty"):
        prompt_sensitivity(Graded(), SETS[:1], ["a", ""][1:])
