"""CIPHER: debates in beliefs, on a real model of random weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from ctxkit.context import Budget, Limits, fit
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, PromptError
from ctxkit.models.local import LocalModel
from ctxkit.models.requests import Request, as_request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit.testing.tiny import TINY_TEMPLATE, tiny_counter, tiny_llama, tiny_tokenizer
from ctxkit.tokens import TemplateCounter
from ctxkit_agents.debate.belief import Belief
from ctxkit_agents.debate.cipher_debate import CipherDebate
from ctxkit_agents.debate.mixing import Mixing
from ctxkit_agents.debate.prompts import debate_parts, part_id
from ctxkit_agents.debate.speaker import Piece, Speaker, Spoken
from ctxkit_agents.debate.splice import Spliced, splice
from ctxkit_agents.debate.text_debate import TextDebate
from ctxkit_agents.debate.vocabulary import Vocabulary
from ctxkit_agents.errors import CapabilityMissing, NoAnswer, TokenizerMismatch

QUESTION = "How many legs have two spiders?"
GREEDY = Mixing(Sampling(temperature=0))


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return tiny_model()


@pytest.fixture(scope="module")
def other() -> LocalModel:
    """Other weights, and of another width; the same tokenizer."""
    return tiny_model(seed=5)


def never(text: str) -> str:
    return ""


def cipher(*models: LocalModel, **settings: object) -> CipherDebate:
    given = {"temperatures": (0.4, 1.0), "max_tokens": 10, "rounds": 2, "answer": never, **settings}
    return CipherDebate(models[0] if len(models) == 1 else list(models), **given)  # type: ignore[arg-type]


def greedy_ids(model: LocalModel, ids: tuple[int, ...], max_tokens: int) -> tuple[int, ...]:
    """What the model itself answers to these ids."""
    request = Request(as_request("not read: the ids are").messages, ids=ids)
    reply = model.generate(request, Sampling(max_tokens=max_tokens, logprobs=0))
    return tuple(one.id for one in reply.logprobs if one.id is not None)


def ids_of(piece: Piece) -> tuple[int, ...]:
    return tuple(piece.top_ids) if isinstance(piece, Belief) else piece


def test_at_temperature_0_each_answer_is_the_greedy_one_to_a_prompt_with_the_tokens_of_the_others(
    model: LocalModel, other: LocalModel
) -> None:
    """The claim of the docstring, against a debate that is made here of nothing but `generate`."""
    models = (model, other, model)
    outcome = cipher(*models, temperatures=(0, 0, 0), rounds=3, max_tokens=24).task(QUESTION).run()
    vocabulary = Vocabulary.of(model.counter.tokenizer).fingerprint
    said: dict[int, tuple[int, ...]] = {}
    for statements in outcome.value.rounds:
        texts = dict.fromkeys(said, "not read")
        beliefs = {part_id(number): Belief.of_ids(ids, vocabulary) for number, ids in said.items()}
        spoken = {}
        for number, one in enumerate(models, 1):
            pieces = splice(one, debate_parts(QUESTION, texts, number), beliefs).pieces
            spoken[number] = greedy_ids(one, tuple(token for piece in pieces for token in ids_of(piece)), 24)
        said = spoken
        for statement in statements:
            assert statement.belief is not None and tuple(statement.belief.top_ids) == said[statement.agent]
    assert len(outcome.value.rounds) == 3 and said[1] != said[2]


def test_the_first_round_at_temperature_0_is_that_of_a_text_debate(model: LocalModel, other: LocalModel) -> None:
    settings = {"temperatures": (0, 0), "rounds": 1, "max_tokens": 24}
    in_text = TextDebate([model, other], **settings).task(QUESTION).run()  # type: ignore[arg-type]
    in_beliefs = cipher(model, other, **settings).task(QUESTION).run()
    for one, two in zip(in_text.value.rounds[0], in_beliefs.value.rounds[0], strict=True):
        assert one.text == two.text
    assert in_text.spent == in_beliefs.spent


@pytest.mark.parametrize("texts", [{1: "It is 8.", 2: "It is\n\n16"}, {1: "a", 2: "```b```", 3: " c"}])
def test_beliefs_stand_where_a_text_debate_quotes(model: LocalModel, texts: dict[int, str]) -> None:
    """The ids of the quoted texts in the holes are the ids of the whole prompt."""
    parts = debate_parts(QUESTION, texts, 2)
    tokenizer, vocabulary = model.counter.tokenizer, Vocabulary.of(model.counter.tokenizer).fingerprint
    beliefs = {part_id(n): Belief.of_ids(tokenizer.encode(text).ids, vocabulary) for n, text in texts.items()}
    spliced = splice(model, parts, beliefs)
    plan = fit(parts, budget=Budget(2048, 10), counter=model.counter)
    assert tuple(token for piece in spliced.pieces for token in ids_of(piece)) == plan.ids
    assert spliced.tokens == plan.prompt_tokens and spliced.owners[0] == part_id(2)


def test_a_prompt_that_cannot_be_spliced_is_refused(model: LocalModel) -> None:
    belief = Belief.of_ids([5], Vocabulary.of(model.counter.tokenizer).fingerprint)
    parts = debate_parts(QUESTION, {1: "a"}, 1)
    joined = [replace(part, title="", content="") for part in parts]
    with pytest.raises(PromptError, match="one user message"):
        splice(model, [replace(parts[0], kind="system", role="system"), *joined[1:]], {part_id(1): belief})
    greedy = tiny_tokenizer()
    greedy.add_tokens(["\nX"])
    joining = LocalModel(tiny_llama(), TemplateCounter(greedy, TINY_TEMPLATE, name="joining"))
    with pytest.raises(PromptError, match="joins a quotation"):
        splice(joining, parts, {part_id(1): belief})


def test_nothing_is_drawn_so_a_debate_is_the_same_twice(model: LocalModel, other: LocalModel) -> None:
    first, second = (cipher(model, other).task(QUESTION).run().value for _ in range(2))
    assert first == second and any(one.belief and len(one.belief.ids) > 10 for one in first.rounds[0])


def test_the_mixture_is_fed_and_not_the_likeliest_token(model: LocalModel) -> None:
    """Steps of a session by hand: dense softmax over the table, fed back."""
    mixing = Mixing(Sampling(temperature=1.5))
    ids = model.prompt_ids(QUESTION)
    spoken = Speaker(model, entries=255, mass=1.0).speak([ids], mixing, max_tokens=6, stopped=lambda: False)
    table = model.model.get_input_embeddings().weight.detach()
    with model.session() as session:
        logits = session.step(ids)
        for chosen, p in spoken.belief.positions():
            dense = torch.from_numpy(logits).div(1.5).softmax(-1)
            assert int(chosen[0]) == int(dense.argmax())
            assert torch.allclose(dense[torch.as_tensor(chosen.astype("int64"))], torch.from_numpy(p), atol=0.01)
            logits = session.step_embeddings((dense @ table)[None])
    assert len(spoken.belief) == 6 and spoken.finish_reason == "length"


def test_partial_is_certain_where_the_model_is() -> None:
    logits = torch.tensor([4.0, 1.0, 0.0])
    averaged = Mixing(Sampling(temperature=1.0))(logits)
    assert averaged.sum() == pytest.approx(1) and 0.85 < float(averaged[0]) < 1
    assert Mixing(Sampling(temperature=1.0), partial=0.85)(logits).tolist() == [1, 0, 0]
    assert torch.equal(Mixing(Sampling(temperature=1.0), partial=0.99)(logits), averaged)
    assert Mixing(Sampling(temperature=0))(logits).tolist() == [1, 0, 0]


def test_top_k_and_top_p_leave_tokens_out_and_share_the_rest() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    two = Mixing(Sampling(temperature=1.0, top_k=2))(logits)
    assert (two > 0).tolist() == [True, True, False, False] and two.sum() == pytest.approx(1)
    assert (Mixing(Sampling(temperature=1.0, top_p=0.5))(logits) > 0).tolist() == [True, False, False, False]


def greedy_text(model: LocalModel, max_tokens: int = 20) -> str:
    return model.generate(QUESTION, Sampling(max_tokens=max_tokens)).text


def test_an_answer_ends_at_a_stop_string_in_its_nearest_tokens(model: LocalModel) -> None:
    ids, whole = model.prompt_ids(QUESTION), greedy_text(model)
    stop = next(char for char in whole[4:] if char.isascii())
    mixing = Mixing(Sampling(temperature=0, stop=(stop, "never said")))
    spoken = Speaker(model, entries=4, mass=0.9).speak([ids], mixing, max_tokens=20, stopped=lambda: False)
    assert spoken.text == whole[: whole.index(stop)].rstrip("\ufffd") and spoken.finish_reason == "stop"
    assert len(spoken.belief) < spoken.tokens < 20


def test_an_answer_ends_where_the_likeliest_token_ends_answers(model: LocalModel) -> None:
    ids = model.prompt_ids(QUESTION)
    said = greedy_ids(model, ids, 20)
    at = max(said.index(token) for token in said)  # first seen there
    ending = LocalModel(model.model, model.counter, eos_ids=[said[at]])
    spoken = Speaker(ending, entries=4, mass=0.9).speak([ids], GREEDY, max_tokens=20, stopped=lambda: False)
    assert tuple(spoken.belief.top_ids) == said[:at]
    assert spoken.finish_reason == "stop" and spoken.tokens == at + 1


def test_an_agent_that_ends_at_once_has_said_nothing(model: LocalModel) -> None:
    silent = LocalModel(model.model, model.counter, eos_ids=range(model.counter.tokenizer.get_vocab_size()))
    outcome = cipher(model, silent).task(QUESTION).run()
    assert {one.agent for said in outcome.value.rounds for one in said} == {1}
    assert "agent 2 is left out of round 1: it answered nothing" in outcome.degraded[0]
    with pytest.raises(NoAnswer):
        cipher(silent).task(QUESTION).run()


def test_positions_are_paid_for_as_tokens(model: LocalModel) -> None:
    outcome = cipher(model).task(QUESTION).run(paid_by=Limits(tokens=5000))
    beliefs = [one.belief for said in outcome.value.rounds for one in said if one.belief is not None]
    assert outcome.spent.calls == 4 and outcome.spent.tokens_out == sum(one.tokens for one in beliefs) == 40
    first, second = (message.tokens_in for message in outcome.trace.messages[::2])
    texts = {1: "", 2: ""}
    template = splice(model, debate_parts(QUESTION, texts, 1), {part_id(n): beliefs[n - 1].last(0) for n in texts})
    assert first == len(model.prompt_ids(f"{QUESTION}\n\n{cipher(model).instruction}"))
    assert second == template.tokens + 20


@pytest.mark.parametrize("tokens", [0, 60, 100, 180, 200, 300, 400])
def test_a_budget_is_never_exceeded(model: LocalModel, tokens: int) -> None:
    task = cipher(model).task(QUESTION)
    try:
        assert task.run(paid_by=Limits(tokens=tokens)).spent.tokens <= tokens
    except BudgetOverdrawn:
        assert tokens <= 200  # the first round needs 202


def test_in_a_small_window_the_beliefs_of_the_others_are_cut_first_and_no_prompt_is_too_long() -> None:
    small = tiny_model(window_tokens=310)
    outcome = cipher(small, temperatures=(0.4, 0.7, 1.0), max_tokens=40).task(QUESTION).run()
    later = [message for message in outcome.trace.messages if message.path.startswith("debate/round-2")]
    assert len(later) == 3 and all(269 <= message.tokens_in <= 270 for message in later)
    assert len(outcome.degraded) == 3 and "of 40 of agent-2, " in outcome.degraded[0]
    assert "of agent-1" not in outcome.degraded[0]


def spliced(*lengths: int) -> Spliced:
    beliefs = tuple(Belief.of_ids(range(length), "00" * 8) for length in lengths)
    texts = tuple((1,) * 5 for _ in range(len(lengths) + 1))
    return Spliced(texts, tuple(f"agent-{n}" for n in range(len(lengths))), beliefs)


@pytest.mark.parametrize(
    ("room", "left"),
    [(60, [20, 10, 30]), (59, [20, 10, 29]), (42, [20, 10, 12]), (35, [20, 7, 7]), (20, [20, 0, 0]), (7, [7, 0, 0])],
)
def test_what_does_not_fit_is_taken_from_the_longest_of_the_others(room: int, left: list[int]) -> None:
    whole = spliced(20, 10, 30)
    fitted = whole.fitted(Budget(20 + room + 1, 1), "agent-0")
    assert [len(one) for one in fitted.beliefs] == left
    assert all(cut == full.last(len(cut)) for cut, full in zip(fitted.beliefs, whole.beliefs, strict=True))


def test_a_template_that_does_not_fit_is_refused_with_the_window_it_needs() -> None:
    with pytest.raises(BudgetInfeasible) as refusal:
        spliced(3).fitted(Budget(9, 2), "agent-0")
    assert refusal.value.minimum == 12
    assert spliced().fitted(Budget(12, 2), "agent-0") == spliced()


def test_a_debate_that_died_goes_on_with_the_beliefs_it_had(model: LocalModel, tmp_path: Path) -> None:
    path = tmp_path / "debate"
    task = cipher(model, at_once=1).task(QUESTION)
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(calls=1), checkpoint=path)
    whole = task.run(checkpoint=path)
    assert (whole.spent.calls, whole.paid.calls) == (4, 3)
    again = task.run(checkpoint=path)
    assert again.paid.calls == 0 and again.value == whole.value == task.run().value
    assert [message.replayed for message in again.trace.messages] == [True] * 4


def test_a_late_agent_stops_and_is_paid_for_what_it_had_read(model: LocalModel, other: LocalModel) -> None:
    debate = cipher(other, model, rounds=1, timeout_seconds=0.5)
    slow, quick = debate._speakers[id(other)], debate._speakers[id(model)]
    vocabulary = quick.table.vocabulary.fingerprint

    def read(session: object, prompt: object, stopped: Callable[[], bool]) -> None:
        while not stopped():
            threading.Event().wait(0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow, "_read", read)
        patch.setattr(quick, "speak", lambda *_, **__: Spoken(Belief.of_ids([9], vocabulary), "16", 2, "stop"))
        outcome = debate.task(QUESTION).run()
    assert outcome.value.agent == 2 and "CallTimeout" in outcome.degraded[0]
    assert outcome.spent.calls == 2 and outcome.spent.tokens_out == 2


def test_a_cancelled_debate_stops_between_two_positions_and_gives_its_memory_back(model: LocalModel) -> None:
    fresh = LocalModel(model.model, model.counter, prefix_bytes=0)
    debate = cipher(fresh, rounds=1, max_tokens=1500)
    speaker, begun = debate._speakers[id(fresh)], threading.Event()
    one_pass, passes = speaker._pass, []

    def counted(*given: object) -> object:
        passes.append(1)
        begun.set()
        return one_pass(*given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speaker, "_pass", counted)
        with debate.task(QUESTION).stream(paid_by=Limits(tokens=10_000)):
            assert begun.wait(30)
    assert 0 < len(passes) < 1500
    assert fresh.engine.pool.used_bytes == 0


def test_models_that_cannot_are_refused_before_anything_is_computed(model: LocalModel) -> None:
    with pytest.raises(CapabilityMissing, match="'scripted' has no 'logits'") as refusal:
        CipherDebate([model, ScriptedModel([])])
    assert refusal.value.capability == "logits"
    tokenizer: Tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<zebra>"])
    stranger = LocalModel(tiny_llama(), TemplateCounter(tokenizer, TINY_TEMPLATE, name="stranger"))
    with pytest.raises(TokenizerMismatch, match="'tiny-llama' and 'stranger' number 1 of"):
        cipher(model, stranger)
    same = LocalModel(tiny_llama(seed=9), tiny_counter("same"))
    assert len(cipher(model, same).agents) == 2


@pytest.mark.parametrize("settings", [{"partial": 0.0}, {"partial": 1.5}, {"entries": 0}, {"mass": 0.0}])
def test_settings_that_make_no_sense_are_refused(model: LocalModel, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        cipher(model, **settings)
