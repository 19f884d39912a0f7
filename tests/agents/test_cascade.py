"""Cascade: which answers are deferred, what that costs, and how the threshold is set."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from ctxkit import question, system
from ctxkit.context import Limits, Run
from ctxkit.errors import BudgetOverdrawn, ModelError
from ctxkit.models.requests import GREEDY, Promptable, Request
from ctxkit.models.streams import AsyncPieceStream, PieceStream
from ctxkit.protocols import Reply, Sampling, TokenLogprob
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit_agents.cascade import Cascade
from ctxkit_agents.deferral import (
    NO_TRUST,
    CascadeExample,
    ChowMean,
    ChowQuantile,
    ChowSum,
    DeferralRule,
    FittedRule,
    curve,
    quantile,
)
from ctxkit_agents.errors import CapabilityMissing


class Measured(ScriptedModel):
    """A scripted model that is as sure of each word as the word says: "sea:0.9" is the word sea, at 0.9."""

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        answer = self._answer(prompt, sampling)
        plain = answer.reply

        def reply(text: str, finish_reason: str) -> Reply:
            said = plain(text, finish_reason)
            words = [word.partition(":") for word in said.text.split()]
            known = tuple(TokenLogprob(word, math.log(float(sure))) for word, _, sure in words)
            spoken = " ".join(word for word, *_ in words)
            return Reply(
                spoken,
                said.finish_reason,
                said.prompt_tokens,
                said.completion_tokens,
                said.model,
                logprobs=known if sampling.logprobs is not None else (),
            )

        answer.reply = reply  # type: ignore[method-assign]
        return PieceStream(answer)

    def astream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> AsyncPieceStream:
        return AsyncPieceStream(self.stream(prompt, sampling))


def small(*said: str) -> Measured:
    return Measured(list(said), name="small")


def large(*said: str) -> Measured:
    return Measured(list(said), name="large")


def test_a_sure_answer_stands_and_an_unsure_one_is_deferred() -> None:
    models = [small("the:0.9 sea:0.8", "the:0.9 lake:0.2"), large("the:1 ocean:1")]
    cascade = Cascade(models, threshold=math.log(0.5))
    sure = cascade.task("Where?").run()
    assert (sure.text, sure.value.model, sure.value.deferred) == ("the sea", "small", False)
    assert sure.spent.calls == 1 and sure.value.scores == (pytest.approx(math.log(0.8)),)
    unsure = cascade.task("Where?").run()
    assert (unsure.text, unsure.value.model, unsure.value.index) == ("the ocean", "large", 1)
    assert unsure.value.answers == ("the lake", "the ocean") and unsure.spent.calls == 2
    assert unsure.paid == unsure.spent


def test_three_models_are_asked_in_turn_each_at_its_own_threshold() -> None:
    middle = Measured(["b:0.6", "b:0.6"], name="middle")
    models = [small("a:0.3", "a:0.3"), middle, large("c:1")]
    loose = Cascade(models, threshold=[math.log(0.5), math.log(0.5)]).task("?").run().value
    assert (loose.text, loose.index) == ("b", 1)
    strict = Cascade(models, threshold=[math.log(0.5), math.log(0.7)]).task("?").run().value
    assert (strict.text, strict.answers) == ("c", ("a", "b", "c"))


def test_only_models_that_are_judged_are_asked_for_logprobs() -> None:
    plain = ScriptedModel(["c"], name="large")
    assert Cascade([small("a:0.1"), plain]).task("?").run().text == "c"
    with pytest.raises(CapabilityMissing, match="stand last") as missing:
        Cascade([ScriptedModel(["a"], name="small"), plain]).task("?").run()
    assert missing.value.capability == "logprobs"


def test_an_answer_without_a_token_is_deferred_whatever_the_threshold() -> None:
    answer = Cascade([small(""), large("c:1")], threshold=-math.inf).task("?").run().value
    assert answer.text == "c" and answer.scores == (NO_TRUST,)


def test_a_model_that_fails_is_passed_over_and_the_run_says_so() -> None:
    broken = Measured([ModelError("broken")], name="small")
    outcome = Cascade([broken, large("c:1")]).task("?").run()
    assert outcome.text == "c" and "small failed (broken)" in outcome.degraded[0]
    assert outcome.value.answers == (None, "c") and outcome.value.scores == ()
    with pytest.raises(ModelError, match="broken"):
        Cascade([small("a:0.1"), Measured([ModelError("broken")])]).task("?").run()


def test_where_the_next_model_cannot_be_paid_for_the_answer_stands_only_if_that_may_be() -> None:
    models = [small("a:0.1", "a:0.1"), large("c:1")]
    with pytest.raises(BudgetOverdrawn):
        Cascade(models).task("?").run(paid_by=Limits(calls=1))
    outcome = Cascade(models).task("?").run(paid_by=Run(Limits(calls=1), overdraft="degrade"))
    assert outcome.text == "a" and "answer of small stands" in outcome.degraded[0]


def test_parts_are_fitted_into_each_models_window() -> None:
    said = Measured(lambda request: f"{len(request.messages)}:1", name="small", window_tokens=60)
    cascade = Cascade([said, large("c:1")], sampling=Sampling(max_tokens=4))
    assert cascade.task([system("Be brief."), question("Where?")]).run().text == "2"


def test_a_finished_call_is_not_asked_again(tmp_path: Path) -> None:
    models = [small("a:0.1"), Measured([ModelError("off"), "c:1"], name="large")]
    with pytest.raises(ModelError):
        Cascade(models).task("?").run(checkpoint=tmp_path / "run")
    resumed = Cascade(models).task("?").run(checkpoint=tmp_path / "run")
    assert resumed.text == "c" and len(models[0].prompts) == 1 and resumed.paid.calls == 1


def test_a_local_model_is_judged_by_its_own_tokens() -> None:
    sampling = Sampling(max_tokens=6)
    model = tiny_model(0)
    logprobs = [one.logprob for one in model.generate("Where?", Sampling(max_tokens=6, logprobs=0)).logprobs]
    answer = Cascade([model, large("c:1")], ChowMean(), 0.5, sampling).task("Where?").run().value
    assert answer.scores == (pytest.approx(sum(logprobs) / len(logprobs)),) and answer.text == "c"


# --- rules -----------------------------------------------------------------------------------------------------


def test_the_rules_on_a_hand_made_answer() -> None:
    answer = [-1.0, -3.0, -2.0, -8.0]
    assert ChowSum().score(answer) == -14 and ChowMean().score(answer) == -3.5
    assert [ChowQuantile(q).score(answer) for q in (0, 0.5, 1)] == [-8, -2.5, -1]
    assert all(rule.score([]) == NO_TRUST for rule in (ChowSum(), ChowMean(), ChowQuantile()))
    assert quantile([-2.0], 0.3) == -2.0


def test_a_sum_trusts_long_answers_less_and_a_mean_hides_one_bad_token() -> None:
    long, bad = [-0.125] * 100, [*[-0.125] * 99, -9.0]
    assert ChowSum().score(long) < ChowSum().score(long[:10]) and ChowMean().score(long) == ChowMean().score(long[:10])
    assert ChowMean().score(long) - ChowMean().score(bad) < 0.1 < ChowQuantile().score(long) - ChowQuantile().score(bad)


def test_a_fitted_rule_learns_which_answers_are_right() -> None:
    right = [[-0.1, -0.2, -0.1 * (n % 3)] for n in range(20)]
    wrong = [[-0.1, -3.0 - n % 2, -0.1] for n in range(20)]
    rule = FittedRule.fit([*right, *wrong, []], [*[True] * 20, *[False] * 20, True])
    assert rule.score([-0.1, -0.2, -0.1]) > 0.5 > rule.score([-0.1, -3.5, -0.1]) and rule.score([]) == NO_TRUST
    with pytest.raises(ValueError, match="both kinds"):
        FittedRule.fit([[-1.0]], [True])


# --- calibration -----------------------------------------------------------------------------------------------


def example(sure: float, *right: bool) -> CascadeExample:
    return CascadeExample(((math.log(sure),), *[()] * (len(right) - 1)), right, (10, 100)[: len(right)])


EXAMPLES = [
    example(0.9, True, True),
    example(0.8, True, False),
    example(0.3, False, True),
    example(0.2, False, True),
    example(0.1, False, False),
]


def test_the_curve_goes_from_deferring_nothing_to_deferring_all() -> None:
    found = curve(ChowQuantile(), EXAMPLES)
    assert [point.share for point in found] == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert [point.quality for point in found] == [0.4, 0.4, 0.6, 0.8, 0.6, 0.6]
    assert [point.tokens for point in found] == [10, 30, 50, 70, 90, 110]
    assert found.alone == ((0.4, 10.0), (0.6, 100.0))
    assert "60%" in str(found) and json.loads(json.dumps(found.to_dict()))["points"][3]["share"] == 0.6


def test_a_calibrated_cascade_defers_what_the_examples_say() -> None:
    cascade = Cascade([small("a:0.5", "a:0.85"), large("c:1")])
    done = cascade.calibrate(EXAMPLES, target_share=0.7)
    assert (done.point.share, done.point.quality) == (0.6, 0.8) and done.thresholds == (pytest.approx(math.log(0.8)),)
    assert [done.cascade.task("?").run().text for _ in range(2)] == ["c", "a"]
    assert cascade.calibrate(EXAMPLES, cost=55).point.tokens == 50
    assert cascade.calibrate(EXAMPLES, cost=45).point.tokens == 10  # more would cost more and be no better


def test_equal_scores_are_deferred_together() -> None:
    found = curve(ChowMean(), [example(0.5, False, True)] * 4)
    assert [(point.share, point.quality) for point in found] == [(0, 0), (1, 1)]


def test_a_chain_of_three_defers_the_same_share_at_each_model() -> None:
    examples = [CascadeExample(((-n / 10,), (-n / 10,), ()), (n < 4, n < 6, True), (1, 10, 100)) for n in range(8)]
    half = next(point for point in curve(ChowMean(), examples) if point.share == 0.5)
    assert half.quality == 1.0 and half.tokens == (8 + 40 + 200) / 8 and half.thresholds == (-0.3, -0.5)


def test_examples_are_gathered_in_a_run_that_pays() -> None:
    def wise(request: Request) -> str:
        return f"{request.messages[-1].content}:0.9"

    cascade = Cascade([Measured(lambda request: "one:0.4", name="small"), Measured(wise, name="large")])
    outcome = cascade.examples(["one", "two"], lambda n, text: text == ["one", "two"][n]).run()
    assert [found.right for found in outcome.value] == [(True, True), (False, True)]
    assert outcome.value[0].logprobs == ((pytest.approx(math.log(0.4)),), ()) and outcome.spent.calls == 4
    assert sum(sum(found.tokens) for found in outcome.value) == outcome.spent.tokens


@pytest.mark.parametrize("rule", [ChowSum(), ChowMean(), ChowQuantile(0.2)], ids=repr)
def test_an_empty_answer_among_the_examples_is_always_deferred(rule: DeferralRule) -> None:
    silent = CascadeExample(((), ()), (False, True), (5, 50))
    assert min(point.share for point in curve(rule, [*EXAMPLES, silent])) == pytest.approx(1 / 6)


def refused(**settings: object) -> None:
    Cascade(**{"models": [small(), large()], **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"models": [small()]}, {"models": []}, {"threshold": [0.1, 0.2]}])
def test_a_cascade_that_cannot_be_is_refused(wrong: dict[str, Sequence[object]]) -> None:
    with pytest.raises(ValueError, match="got"):
        refused(**wrong)


def test_a_calibration_without_a_target_or_examples_is_refused() -> None:
    cascade = Cascade([small(), large()])
    with pytest.raises(ValueError, match="either"):
        cascade.calibrate(EXAMPLES)
    with pytest.raises(ValueError, match="costs 10.0"):
        cascade.calibrate(EXAMPLES, cost=5)
    with pytest.raises(ValueError, match="examples"):
        cascade.calibrate([], target_share=0.5)
    with pytest.raises(ValueError, match="are of 2 models, the cascade has 3"):
        Cascade([small(), small(), large()]).calibrate(EXAMPLES, target_share=0.5)
    with pytest.raises(ValueError, match="per model"):
        CascadeExample(((-1.0,),), (True,), (1,))
    with pytest.raises(ValueError, match="quantile"):
        ChowQuantile(2)
