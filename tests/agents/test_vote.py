"""Vote: the majority, when it is decided, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.context import Limits, Run, passage, question
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, ModelError
from ctxkit.protocols import Reply, Sampling, TokenLogprob
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit_agents.answers import choice, final_answer, json_field, last_line, last_number
from ctxkit_agents.ballots import fewest_to_decide, is_decided, leaders, tally
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.vote import Vote

SAMPLING = Sampling(max_tokens=8, temperature=0.7)


def saying(*replies: Any) -> ScriptedModel:
    """A model that says one after the other, an exception where one stands."""
    return ScriptedModel(list(replies))


def vote(*replies: Any, **settings: Any) -> Vote:
    """One at a time, so that the replies go to the samples in order."""
    return Vote(saying(*replies), samples=len(replies), sampling=SAMPLING, at_once=1, **settings)


# --- the majority -----------------------------------------------------------------------------------------------------


def test_the_most_common_answer_wins_whatever_it_is_wrapped_in() -> None:
    result = vote("It is 18.", "so 17", "The answer is $18.00").task("How many?").run().value
    assert result.answer == result.text == "18" and result.votes == {"18": 2, "17": 1}
    assert result.said == "It is 18." and result.share == pytest.approx(2 / 3)


def test_no_more_is_asked_once_the_majority_cannot_change() -> None:
    outcome = Vote(saying(*["it is 4"] * 9), samples=9, sampling=SAMPLING, at_once=8).task("2 + 2?").run()
    assert outcome.value.asked == outcome.spent.calls == 5  # of 9, 5 decide


def test_early_stop_can_be_switched_off() -> None:
    assert vote(*["4"] * 5, early_stop=False).task("2 + 2?").run().value.asked == 5


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_an_early_stop_never_changes_a_majority(answers: list[str]) -> None:
    votes: list[str] = []
    while len(votes) < len(answers) and not is_decided(tally(votes), len(answers) - len(votes)):
        out = len(answers) - len(votes)
        wave = fewest_to_decide(tally(votes), out)
        assert 1 <= wave <= out
        votes += answers[len(votes) : len(votes) + wave]
    assert leaders(tally(votes)) == leaders(tally(answers))


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=12).flatmap(
        lambda x: st.tuples(st.just(x), st.permutations(x))
    )
)
def test_who_leads_does_not_depend_on_the_order_of_the_votes(both: tuple[list[str], Sequence[str]]) -> None:
    answers, permuted = both
    assert tally(answers) == tally(permuted)
    assert set(leaders(tally(answers))) == set(leaders(tally(permuted)))


@given(st.permutations(["7", "7", "7", "8", "8"]))
def test_a_majority_wins_in_every_order_of_the_samples(replies: list[str]) -> None:
    assert vote(*replies).task("?").run().value.answer == "7"


def test_a_tie_goes_to_the_answer_said_first_and_is_told() -> None:
    result = vote("b 2", "a 1", "a 1", "b 2").task("?").run().value
    assert result.answer == "2" and result.tied == ("1",)


def test_a_tie_goes_to_the_likelier_answer_where_log_probabilities_are_there() -> None:
    logprobs = {"2": -3.0, "1": -0.5}

    class Sure(ScriptedModel):
        def _answer(self, prompt: Any, sampling: Sampling) -> Any:
            answer = super()._answer(prompt, sampling)
            plain: Callable[[str, str], Reply] = answer.reply

            def reply(text: str, reason: str) -> Reply:
                said = plain(text, reason)
                token = TokenLogprob(text, logprobs[text])
                return Reply(said.text, reason, said.prompt_tokens, 1, said.model, logprobs=(token,))

            answer.reply = reply  # type: ignore[method-assign]
            return answer

    result = Vote(Sure(["2", "1"]), samples=2, sampling=SAMPLING, at_once=1).task("?").run().value
    assert result.answer == "1" and result.tied == ("2",)


def test_several_models_take_turns_and_samples_have_seeds_of_their_own() -> None:
    class Seeded(ScriptedModel):
        seeds: list[int | None]

        def _answer(self, prompt: Any, sampling: Sampling) -> Any:
            self.__dict__.setdefault("seeds", []).append(sampling.seed)
            return super()._answer(prompt, sampling)

    one, other = Seeded(lambda _: "5", name="one"), Seeded(lambda _: "6", name="other")
    result = Vote([one, other], samples=4, sampling=SAMPLING, seed=10, early_stop=False).task("?").run().value
    assert [ballot.model for ballot in result.ballots] == ["one", "other", "one", "other"]
    assert (one.seeds, other.seeds) == ([10, 12], [11, 13])


def test_greedy_samples_of_one_model_are_refused_and_one_of_each_model_is_not() -> None:
    with pytest.raises(ValueError, match="temperature 0"):
        Vote(saying(), samples=2, sampling=Sampling())
    assert Vote([saying("3"), saying("3")], samples=2, sampling=Sampling()).task("?").run().text == "3"


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"at_once": 0}, {"models": []}])
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Vote(**{"models": saying(), "sampling": SAMPLING, **wrong})


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to ask"):
        vote("1").task(" ")


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_sample_that_fails_or_has_no_answer_is_left_out_and_said() -> None:
    outcome = vote(ModelError("down"), "", "9", "9").task("?").run()
    assert outcome.value.votes == {"9": 2} and outcome.value.asked == 3
    assert ["ModelError: down" in outcome.degraded[0], "no answer" in outcome.degraded[1]] == [True, True]


def test_where_every_sample_fails_the_first_failure_is_raised() -> None:
    with pytest.raises(ModelError, match="first"):
        vote(ModelError("first"), ModelError("second")).task("?").run()


def test_replies_without_any_answer_are_malformed() -> None:
    with pytest.raises(AnswerMalformed, match="none of 2 replies") as caught:
        vote("no idea", "who knows", answer=last_number).task("?").run()
    assert caught.value.answer == "no idea"


def test_votes_are_taken_as_far_as_the_run_can_pay() -> None:
    run = Run(Limits(tokens=25))
    outcome = Vote(saying(*["7 it is"] * 9), samples=9, sampling=SAMPLING, at_once=8).task("which?").run(paid_by=run)
    assert outcome.value.answer == "7" and 1 <= outcome.value.asked < 5
    assert run.spent.tokens <= 25 and any("cannot pay" in said or "Overdrawn" in said for said in outcome.degraded)


def test_a_run_that_cannot_pay_for_one_sample_says_so() -> None:
    with pytest.raises(BudgetOverdrawn):
        vote("1").task("which of these?").run(paid_by=Limits(tokens=4, calls=0))


def test_the_prompt_is_fitted_into_each_model_s_window() -> None:
    small, large = ScriptedModel(lambda _: "1", window_tokens=40), ScriptedModel(lambda _: "1", window_tokens=400)
    parts = [passage("word " * 60), question("How many?")]
    outcome = Vote([small, large], samples=2, sampling=Sampling(max_tokens=8)).task(parts).run()
    sizes = [len(model.prompts[0].messages[-1].content.split()) for model in (small, large)]
    assert sizes[0] <= 32 < sizes[1] and outcome.value.asked == 2


def test_a_question_too_long_for_one_model_leaves_out_that_model() -> None:
    small, large = ScriptedModel(lambda _: "1", window_tokens=12), ScriptedModel(lambda _: "1")
    outcome = Vote([small, large], samples=2, sampling=Sampling(max_tokens=4)).task("word " * 20).run()
    assert outcome.value.asked == 1 and "BudgetInfeasible" in outcome.degraded[0]
    with pytest.raises(BudgetInfeasible):
        Vote(small, samples=1, sampling=Sampling(max_tokens=4)).task("word " * 20).run()


def test_a_vote_goes_on_where_it_died(tmp_path: Path) -> None:
    class Died(BaseException):
        """The process ends."""

    replies: list[Any] = ["3", "4"]

    def answer(_: object) -> str:
        if not replies:
            raise Died
        return str(replies.pop(0))

    task = Vote(ScriptedModel(answer), samples=5, sampling=SAMPLING, at_once=1).task("?")
    with pytest.raises(Died):
        task.run(checkpoint=tmp_path / "vote.db")
    replies += ["4", "4"]
    outcome = task.run(checkpoint=tmp_path / "vote.db")
    assert outcome.value.votes == {"4": 3, "3": 1} and outcome.paid.calls == 2


def test_a_real_model_votes_within_its_budget() -> None:
    outcome = (
        Vote(tiny_model(), samples=3, sampling=Sampling(max_tokens=4, temperature=1.0), answer=lambda text: "x")
        .task("hello")
        .run(paid_by=Limits(tokens=400))
    )
    assert outcome.text == "x" and outcome.spent.tokens <= 400


# --- extractors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("She pays $1,234.50 in all.", "1234.5"),
        ("from 3 to -4", "-4"),
        ("5-3", "3"),
        ("It is 007.", "7"),
        ("0.50 or .5", "0.5"),
        ("-0", "0"),
        ("the 2nd", None),
        ("1, 2, 3", "3"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012345"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_has_one_form(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("**Answer: Paris.**\n\n", "paris"),
        ("So\nthe answer is  New   York!", "new york"),
        ("One\n---\n", "one"),
        ("", None),
        ("answer", "answer"),
    ],
)
def test_the_last_line_is_stripped_of_what_does_not_matter(text: str, line: str | None) -> None:
    assert last_line(text) == line


def test_the_default_is_the_last_number_else_the_last_line() -> None:
    assert (final_answer("so 4 of them\nindeed"), final_answer("Indeed."), final_answer("?!")) == ("4", "indeed", None)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("Yes.", "yes"),
        ("The answer is yes, not no.", "yes"),
        ("yes? No.", "no"),
        ("I am not  sure", "not sure"),
        ("eyes and nose", None),
        ("", None),
    ],
)
def test_a_choice_is_one_of_the_options(text: str, option: str | None) -> None:
    assert choice(["yes", "no", "not sure"])(text) == option


def test_an_article_is_no_choice_of_a_letter() -> None:
    assert choice(["A", "B"])("It is a bird, so (B).") == "B" and choice(["A", "B"])("It is a bird.") is None


@pytest.mark.parametrize("wrong", [[], ["yes"], ["yes", "YES"], ["yes", " "]])
def test_options_must_differ(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="options"):
        choice(wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n": 1} then {"n": 2.50}', "2.5"),
        ('```json\n{"n": " Yes. "}\n```', "yes"),
        ('{"n": "1,000"}', "1000"),
        ('{"n": true}', "true"),
        ('{"n": [1, 2]}', "[1, 2]"),
        ('{"n": null}', None),
        ('{"m": 1}', None),
        ("no JSON { here", None),
    ],
)
def test_a_field_of_the_last_json_object(text: str, value: str | None) -> None:
    assert json_field("n")(text) == value


@given(st.text(max_size=60))
def test_no_text_breaks_an_extractor(text: str) -> None:
    for extract in (last_number, last_line, final_answer, choice(["yes", "no", "İi"]), json_field("a")):
        answer = extract(text)
        assert answer is None or answer.strip()
