"""Token collaboration: routers, ways to combine, speculation, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from ctxkit.errors import PromptError
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_counter, tiny_llama, tiny_model, tiny_tokenizer
from ctxkit.tokens import TemplateCounter
from ctxkit_agents.collaboration.answer import CoWritten
from ctxkit_agents.collaboration.combine import Combine
from ctxkit_agents.collaboration.logistic import Logistic
from ctxkit_agents.collaboration.mixing import Contrast, Oracle, ProxyTuning
from ctxkit_agents.collaboration.routers import Always, Delta, Learned, Never, Router, Seen, Threshold
from ctxkit_agents.collaboration.speculate import Exact, Lenient, Speculate
from ctxkit_agents.collaboration.token_collaboration import TokenCollaboration
from ctxkit_agents.collaboration.words import FromHereOn, Words
from ctxkit_agents.errors import CapabilityMissing

PROMPT = "Where is the sea?"
LENGTH = 24
GREEDY = Sampling(max_tokens=LENGTH)


@pytest.fixture(scope="module")
def small() -> LocalModel:
    return tiny_model(0)


@pytest.fixture(scope="module")
def large() -> LocalModel:
    return tiny_model(1)


def other_tokens() -> LocalModel:
    """A tiny model with one token more."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["sea"])
    weights = tiny_llama(2)
    weights.resize_token_embeddings(tokenizer.get_vocab_size())
    return LocalModel(weights, TemplateCounter(tokenizer, tiny_counter().chat_template, name="other"))


def together(
    small: LocalModel, large: LocalModel, router: Router, combine: Combine, sampling: Sampling = GREEDY
) -> CoWritten:
    outcome = TokenCollaboration(small, large, router, combine, sampling).task(PROMPT).run()
    assert outcome.paid == outcome.spent and outcome.degraded == ()
    assert outcome.value.text == "".join(step.text for step in outcome.value.steps)
    return outcome.value


# --- who writes ------------------------------------------------------------------------------------------------


def test_never_asking_is_the_small_model_alone(small: LocalModel, large: LocalModel) -> None:
    answer = together(small, large, Never(), Oracle())
    assert answer.text == small.generate(PROMPT, GREEDY).text and answer.helper_share == 0
    assert answer.helper.passes == 0 and answer.steps[0].author == "small"


@pytest.mark.parametrize(
    "combine",
    [Oracle(), Contrast(beta=1.0), Contrast(alpha=1.0), Speculate(), Speculate(draft=1)],
    ids=repr,
)
def test_always_asking_can_be_the_large_model_alone(small: LocalModel, large: LocalModel, combine: Combine) -> None:
    assert together(small, large, Always(), combine).text == large.generate(PROMPT, GREEDY).text


def test_deferring_at_once_is_the_large_model_alone(small: LocalModel, large: LocalModel) -> None:
    answer = together(small, large, Always(), FromHereOn())
    assert answer.text and large.generate(PROMPT, GREEDY).text.startswith(answer.text)
    assert answer.finish_reason == "length" and answer.writer.passes == 0


def test_always_asking_for_a_token_costs_the_large_model_what_it_costs_alone(
    small: LocalModel, large: LocalModel
) -> None:
    answer, alone = together(small, large, Always(), Oracle()), large.generate(PROMPT, GREEDY)
    assert (answer.helper.tokens_in, answer.helper.tokens_out) == (alone.prompt_tokens, alone.completion_tokens)
    assert answer.helper.passes == alone.completion_tokens and answer.writer.passes == 0


def test_asking_at_some_tokens_reads_the_others_in_one_pass(small: LocalModel, large: LocalModel) -> None:
    answer = together(small, large, Threshold(0.09), Oracle())
    asked = sum(step.tokens for step in answer.steps if step.author == "large")
    assert 0 < asked < LENGTH and answer.helper.passes == asked == answer.helper.tokens_out
    assert 0 < answer.helper_share < 1 and answer.helper.reread == answer.writer.reread == 0
    for step in answer.steps:
        assert step.probability is not None and (step.probability < 0.09) == (step.author == "large")


def test_a_cascade_inside_an_answer_never_goes_back_to_the_small_model(small: LocalModel, large: LocalModel) -> None:
    answer = together(small, large, Threshold(0.05), FromHereOn())
    authors = [step.author for step in answer.steps]
    assert authors[0] == "small" and "large" in authors
    assert "small" not in authors[authors.index("large") :]
    assert answer.writer.tokens_out == answer.writer.answer_tokens


def test_models_of_different_tokens_exchange_text_and_nothing_else(small: LocalModel) -> None:
    other = other_tokens()
    for combine in (Words(), FromHereOn()):
        assert together(small, other, Threshold(0.3), combine).helper.passes > 0
    for combine in (Oracle(), Contrast(), Speculate()):
        with pytest.raises(CapabilityMissing, match="different tokens.*Words") as missing:
            TokenCollaboration(small, other, combine=combine)
        assert missing.value.capability == "same_tokens"
    with pytest.raises(CapabilityMissing, match="different tokens"):
        TokenCollaboration(small, small, combine=ProxyTuning(other))


# --- logits ----------------------------------------------------------------------------------------------------


def test_contrast_is_the_formula_on_a_hand_made_pair() -> None:
    small, large = np.array([3.0, 1.0, 0.0]), np.array([2.0, 2.0, -5.0])
    score = Contrast(alpha=0.1, beta=0.5).mix(small, large)
    assert score.tolist() == [2.5, 1.5, -np.inf]  # exp(-7) is below a tenth
    away = Contrast(alpha=0.1, beta=3.0).mix(small, large)
    assert int(away.argmax()) == 1  # beyond 1 it goes away from the small model


def test_proxy_tuning_moves_the_large_model_by_what_tuning_moved_the_small_one(
    small: LocalModel, large: LocalModel
) -> None:
    tuned, large_logits, untuned = np.array([0.0, 2.0]), np.array([3.0, 2.0]), np.array([0.0, 0.0])
    assert ProxyTuning(small, alpha=1.0).mix(tuned, large_logits, untuned).tolist() == [3.0, 4.0]
    answer = together(tiny_model(3), large, Always(), ProxyTuning(small, alpha=0.0))
    assert answer.text == large.generate(PROMPT, GREEDY).text and answer.others[0].passes == LENGTH
    same = together(small, large, Always(), ProxyTuning(small))  # tuning moved nothing
    assert same.text == answer.text


# --- speculation -----------------------------------------------------------------------------------------------


def test_a_draft_that_holds_saves_passes_and_stays_within_the_length(small: LocalModel, large: LocalModel) -> None:
    itself = together(large, tiny_model(1), Always(), Speculate(draft=5))
    assert itself.text == large.generate(PROMPT, GREEDY).text
    assert itself.helper.passes == LENGTH // 6 and itself.writer.answer_tokens == LENGTH * 5 // 6
    for length in (1, 2, 7):
        short = Sampling(max_tokens=length)
        assert together(small, large, Always(), Speculate(), short).text == large.generate(PROMPT, short).text


def test_a_lenient_judge_lets_more_of_the_draft_stand(small: LocalModel, large: LocalModel) -> None:
    all_of_it = together(small, large, Always(), Speculate(accept=Lenient(ratio=0.0, top_k=1000)))
    drafts = "".join(step.text for step in all_of_it.steps[:1])
    assert small.generate(PROMPT, GREEDY).text.startswith(drafts) and all_of_it.steps[0].tokens == 5
    assert all_of_it.helper_share < together(small, large, Always(), Speculate()).helper_share


def test_lenient_is_exact_where_nothing_else_is_near() -> None:
    logits = np.log(np.array([0.5, 0.2, 0.25, 0.05]))
    assert [Lenient(0.3, 5).accepts(logits, token) for token in range(4)] == [True, True, True, False]
    assert [Lenient(0.3, 2).accepts(logits, token) for token in range(4)] == [True, False, True, False]
    assert [Lenient(1.0, 5).accepts(logits, token) for token in range(4)] == [
        Exact().accepts(logits, token) for token in range(4)
    ]


def test_the_answer_ends_where_the_large_model_ends_it(small: LocalModel) -> None:
    large = tiny_model(1)
    said = list(large.generate(PROMPT, Sampling(max_tokens=LENGTH, logprobs=0)).logprobs)
    end = next(token.id for n, token in enumerate(said) if n > 5 and token.id not in [one.id for one in said[:n]])
    ending = tiny_model(1)
    ending.eos_ids = frozenset({end})  # type: ignore[arg-type]
    alone = ending.generate(PROMPT, GREEDY)
    assert alone.finish_reason == "stop" and alone.completion_tokens < LENGTH
    for combine in (Oracle(), Contrast(beta=1.0), FromHereOn(), Speculate(), Speculate(draft=2)):
        answer = together(small, ending, Always(), combine)
        assert (answer.text, answer.finish_reason) == (alone.text, "stop")


# --- routers ---------------------------------------------------------------------------------------------------


def test_routers_ask_where_the_writer_is_unsure() -> None:
    sure, unsure = (0.9, 0.05, *[0.005] * 8), (0.4, 0.35, *[0.03] * 8)
    for router in (Threshold(0.5), Delta(0.1)):
        assert router.consults(unsure[: router.looks]) and not router.consults(sure[: router.looks])
        assert router.why(unsure)
    assert Threshold(1.0).consults((0.999,)) and not Threshold(0.0).consults((0.0,))
    assert not Threshold(0.5).consults((0.5,)) and not Delta(0.0).consults((0.5, 0.5))


def test_a_learned_router_finds_where_the_two_differ(small: LocalModel, large: LocalModel) -> None:
    answer = together(small, large, Always(looks=10), Oracle())
    assert len(answer.seen) == LENGTH and all(len(one.top) == 10 for one in answer.seen)
    assert any(one.differs for one in answer.seen)
    draw = np.random.default_rng(0)
    seen = [Seen((p, *[(1 - p) / 9] * 9), bool(draw.random() > p)) for p in draw.uniform(0.1, 1, 400)]
    router = Learned.fit(seen)
    assert router.consults((0.2, *[0.8 / 9] * 9)) and not router.consults((0.95, *[0.05 / 9] * 9))
    assert 0 < together(small, large, router, Oracle()).helper_share <= 1


def test_a_router_is_not_learned_from_one_kind_of_example() -> None:
    with pytest.raises(ValueError, match="both kinds.*0 of 3"):
        Learned.fit([Seen(tuple([0.1] * 10), False)] * 3)
    with pytest.raises(ValueError, match="both kinds"):
        Learned.fit([])
    with pytest.raises(ValueError, match="2 features, got 1"):
        Logistic.fit(np.array([[0, 1], [1, 0], [1, 1]]), [True, False, True]).probability([1.0])


def test_logistic_regression_recovers_the_chances_it_was_drawn_from() -> None:
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(4000, 2))
    chance = 1 / (1 + np.exp(-(0.5 + 2 * rows[:, 0] - rows[:, 1])))
    model = Logistic.fit(rows, (draw.random(4000) < chance).tolist(), penalty=1e-3)
    found = [model.probability(row) for row in rows[:200]]
    assert np.abs(found - chance[:200]).max() < 0.05


def test_separable_examples_and_a_constant_feature_do_no_harm() -> None:
    model = Logistic.fit(np.array([[0.0, 7.0], [1.0, 7.0]]), [False, True])
    assert model.probability([0.0, 7.0]) < 0.5 < model.probability([1.0, 7.0])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Threshold(1.5),
        lambda: Delta(0.6),
        lambda: Contrast(alpha=0),
        lambda: Contrast(beta=-1),
        lambda: Lenient(ratio=2),
        lambda: Lenient(top_k=0),
        lambda: Speculate(draft=0),
        lambda: Words(tokens=0),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="got"):
        wrong()  # type: ignore[operator]


# --- the session's rows ----------------------------------------------------------------------------------------


def test_rows_of_a_session_are_the_models_logits_and_leave_the_text_read(small: LocalModel) -> None:
    ids = small.counter.tokenizer.encode("in the sea and the sand", add_special_tokens=False).ids
    with small.session() as session:
        session.step([*ids[:6], 9, 9])
        rows = session.sync_rows(ids, 4)
        assert np.allclose(rows, small.logits(ids, last=4), atol=1e-4) and session.ids == tuple(ids)
        assert np.allclose(session.logits, rows[-1])
        assert np.allclose(session.sync_rows(ids, len(ids)), small.logits(ids, last=len(ids)), atol=1e-4)
        with pytest.raises(PromptError, match="`last`"):
            session.sync_rows(ids, 0)
    with tiny_model(0, prefill_tokens=3).session() as chunked:
        assert np.allclose(chunked.sync_rows(ids, 2), rows[-2:], atol=1e-4)
