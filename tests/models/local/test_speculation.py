"""Speculative decoding: fewer passes, the same answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctxkit.errors import ModelError
from ctxkit.models import LocalModel
from ctxkit.models.local import Draft, NGram
from ctxkit.models.local.batching import Scheduler
from ctxkit.models.local.choosing import Chooser, Guess
from ctxkit.models.local.decoding import decode
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.policies.base import Kept, Policy
from ctxkit.models.local.policies.streaming_llm import StreamingLLM
from ctxkit.models.local.sampling import Dice, SeededDice
from ctxkit.models.local.speculation import Acceptance, Drafter, Speculation
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_counter, tiny_llama, tiny_model

PROMPTS = ["Hello 42", "", "one two three one two three one two three one two", "naïve café 日本 " * 30]
SAMPLING = Sampling(max_tokens=30)


@dataclass(frozen=True)
class Oracle(Speculation):
    """Drafts a known answer, with a wrong token at every `wrong`-th place (0: nowhere)."""

    ids: tuple[int, ...]
    prompt: int
    wrong: int = 0
    most: int = 7

    @contextmanager
    def drafting(self, sampling: Sampling, dice: Dice, tokens: int) -> Iterator[Drafter]:
        yield self  # pyright: ignore[reportReturnType]

    def draft(self, text: Sequence[int], most: int) -> list[Guess]:
        done = len(text) - self.prompt
        known = self.ids[done : done + min(most, self.most)]
        fails = [self.wrong > 0 and (done + i) % self.wrong == 1 for i in range(len(known))]
        return [Guess((token + 1) % 250 if fail else token) for token, fail in zip(known, fails, strict=True)]

    def note(self, held: int, drafted: int) -> None:
        pass


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return tiny_model(prefix_bytes=0)  # what an answer took is free when it ends


def _answer(model: LocalModel, prompt: str, sampling: Sampling) -> tuple[str, list[int], int]:
    """(text, ids, passes after the prompt's)."""
    passes: list[int] = []
    hook = model.model.register_forward_pre_hook(lambda module, args: passes.append(1))
    reply = model.generate(prompt, Sampling(**{**_fields(sampling), "logprobs": 0}))
    hook.remove()
    assert model.engine.pool.used == 0
    return reply.text, [one.id for one in reply.logprobs if one.id is not None], len(passes) - 1


def _fields(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__dataclass_fields__}


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "sampling",
    [
        SAMPLING,
        Sampling(max_tokens=30, frequency_penalty=0.5),
        Sampling(max_tokens=30, temperature=0.8, top_k=30, seed=5),
        Sampling(max_tokens=1),
    ],
)
def test_ngram_drafts_change_no_token_greedily_or_with_a_seed(prompt: str, sampling: Sampling) -> None:
    model = tiny_model(prefix_bytes=0)
    plain = _answer(model, prompt, sampling)
    model.speculation = NGram(token_cost=0.0)
    assert _answer(model, prompt, sampling)[:2] == plain[:2]


def test_drafts_that_hold_save_passes_and_the_answer_is_the_same() -> None:
    model = tiny_model(prefix_bytes=0)
    text, ids, passes = _answer(model, "Hello 42", SAMPLING)
    prompt = len(model.prompt_ids("Hello 42"))
    model.speculation = Oracle(tuple(ids), prompt)
    assert _answer(model, "Hello 42", SAMPLING) == (text, ids, -(-passes // 8))
    model.speculation = Oracle(tuple(ids), prompt, wrong=5)
    answer = _answer(model, "Hello 42", SAMPLING)
    assert answer[:2] == (text, ids)
    assert passes / 8 + 1 < answer[2] < passes / 3


@pytest.mark.parametrize(
    ("policy", "wrong"), [(StreamingLLM(2, 24), 7), (StreamingLLM(0, 100), 5), (StreamingLLM(4, 1), 4)]
)
def test_drafts_are_taken_back_where_a_window_moves_on(policy: Policy, wrong: int) -> None:
    model = LocalModel(tiny_llama().double(), tiny_counter(), prefix_bytes=0)
    model.engine.policy = policy
    sampling = Sampling(max_tokens=100, frequency_penalty=0.3)
    plain = _answer(model, PROMPTS[3], sampling)
    model.speculation = Oracle(tuple(plain[1]), len(model.prompt_ids(PROMPTS[3])), wrong)
    assert _answer(model, PROMPTS[3], sampling)[:2] == plain[:2]


def test_a_frame_that_ends_within_a_draft_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxkit.models.local.paging.context.FRAME_TOKENS", 64)
    model = LocalModel(tiny_llama().double(), tiny_counter(), prefix_bytes=0)
    prompt = "x" * (64 - len(model.prompt_ids("")) - 5)
    plain = _answer(model, prompt, Sampling(max_tokens=24))
    model.speculation = Oracle(tuple(plain[1]), len(model.prompt_ids(prompt)), wrong=6)
    assert _answer(model, prompt, Sampling(max_tokens=24))[:2] == plain[:2]


@dataclass(frozen=True)
class _Forgets(Policy):
    def retain(self, kept: Kept) -> np.ndarray | None:
        return kept.positions >= kept.length - 20 if kept.length % 8 == 0 else None


def test_a_policy_that_cannot_go_back_answers_without_drafts_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny_model(prefix_bytes=0)
    model.engine.policy = _Forgets()
    plain = _answer(model, "Hello 42", SAMPLING)
    model.speculation = NGram(token_cost=0.0)
    with caplog.at_level(logging.WARNING):
        assert [_answer(model, "Hello 42", SAMPLING) for _ in range(2)] == [plain, plain]
    assert [record.message for record in caplog.records if "_Forgets" in record.message] == [
        f"{model!r} answers without speculation: what _Forgets() keeps or selects cannot be undone"
    ]


def test_what_cannot_be_taken_back_after_all_is_an_error() -> None:
    engine = Engine(tiny_llama())
    context = engine.new_context(_Forgets())
    logits = engine.prefill([5] * 30, context)
    assert logits is not None
    wrong = Oracle((int(logits.argmax()), 0, 0, 0), 30, wrong=2)
    chooser = Chooser(SAMPLING, SeededDice(0))
    with pytest.raises(ModelError, match="without speculation"):
        engine.crop = lambda context, tokens: False  # pyright: ignore[reportAttributeAccessIssue]
        list(decode(Scheduler(engine), context, logits, chooser, max_tokens=9, drafter=wrong, stopped=lambda: False))


# --- a draft model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompt", "seed"), [("", 0), ("Hello 42", 1), (PROMPTS[3], 1)])
def test_a_draft_model_changes_no_token_greedily(prompt: str, seed: int) -> None:
    model, other = tiny_model(0, prefix_bytes=0), tiny_model(seed, prefix_bytes=0)
    plain = _answer(model, prompt, SAMPLING)
    model.speculation = Draft(other, token_cost=0.0)
    drafted = _answer(model, prompt, SAMPLING)
    assert drafted[:2] == plain[:2]
    assert other.engine.pool.used == 0
    if seed == 0:  # its own twin guesses right
        assert drafted[2] <= -(-plain[2] // 9) + 1


def test_a_draft_model_may_itself_forget() -> None:
    model, other = tiny_model(prefix_bytes=0), tiny_model(prefix_bytes=0)
    other.engine.policy = _Forgets()
    plain = _answer(model, PROMPTS[3], SAMPLING)
    model.speculation = Draft(other)
    assert _answer(model, PROMPTS[3], SAMPLING)[:2] == plain[:2]


def test_a_model_with_other_tokens_cannot_draft() -> None:
    other = tiny_counter()
    other.tokenizer.add_tokens(["another"])
    with pytest.raises(ValueError, match="not the same tokens"):
        tiny_model(prefix_bytes=0).speculation = Draft(LocalModel(tiny_llama(), other))


def test_sampled_drafts_reproduce_with_a_seed() -> None:
    model = tiny_model(prefix_bytes=0)
    model.speculation = Draft(tiny_model(1, prefix_bytes=0), token_cost=0.0)
    sampling = Sampling(max_tokens=20, temperature=1.0, seed=3)
    assert _answer(model, "Hello", sampling) == _answer(model, "Hello", sampling)


# --- the distribution, exactly ---------------------------------------------------------------------------------


class Branching:
    """Dice that go one way after the other through everything that can happen."""

    def __init__(self, ways: Sequence[int]) -> None:
        self.ways = list(ways)
        self.options: list[int] = []
        self.probability = 1.0

    def _go(self, weights: list[float]) -> int:
        way = self.ways[len(self.options)] if len(self.options) < len(self.ways) else 0
        self.options.append(len(weights))
        self.probability *= weights[way] / sum(weights)
        return way

    def pick(self, weights: Tensor) -> int:
        return self._go(weights.double().tolist())

    def chance(self, probability: float) -> bool:
        return self._go([min(probability, 1.0), max(1 - probability, 0.0)]) == 0


def _outcomes(run: Callable[[Dice], Any]) -> dict[Any, float]:
    """What can come out, and how often."""
    found: dict[Any, float] = {}
    ways: list[int] = []
    while True:
        dice = Branching(ways)
        outcome = run(dice)
        found[outcome] = found.get(outcome, 0.0) + dice.probability
        taken = [*ways, *[0] * (len(dice.options) - len(ways))]
        while taken and taken[-1] + 1 == dice.options[len(taken) - 1]:
            taken.pop()
        if not taken:
            return found
        ways = [*taken[:-1], taken[-1] + 1]


def _table(seed: int) -> Callable[[Sequence[int]], Tensor]:
    """Logits over three tokens after any text."""

    def logits(text: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1000 + int("1" + "".join(map(str, text))))
        return torch.randn(3, generator=generator) * 2

    return logits


@pytest.mark.parametrize("sampling", [Sampling(temperature=1.0), Sampling(temperature=0.7, top_k=2)])
@pytest.mark.parametrize("drafts", ["drawn", "certain", "none"])
def test_the_distribution_of_two_tokens_is_that_of_the_model_alone(sampling: Sampling, drafts: str) -> None:
    large, small = _table(1), _table(2)

    def run(dice: Dice) -> tuple[int, int]:
        text: tuple[int, ...] = ()
        chooser = Chooser(sampling, dice)
        while len(text) < 2:
            guesses: list[Guess] = []
            for _ in range(0 if drafts == "none" else 2 - len(text) - 1):
                drawn = (small((*text, *(guess.token for guess in guesses))) / sampling.temperature).softmax(-1)
                certain = drafts == "certain"
                guesses.append(Guess(int(drawn.argmax()) if certain else dice.pick(drawn), None if certain else drawn))
            rows = [large((*text, *(guess.token for guess in guesses[:n]))) for n in range(len(guesses) + 1)]
            text = (*text, *(chosen.token for chosen in chooser.choose_all(torch.stack(rows), guesses)))
        return text[0], text[1]

    outcomes = _outcomes(run)
    assert sum(outcomes.values()) == pytest.approx(1)
    chosen = Chooser(sampling, SeededDice(0))._distribution
    assert chosen is not None
    for one, two in product(range(3), range(3)):
        expected = float(chosen(large(()))[one] * chosen(large((one,)))[two])
        assert outcomes.get((one, two), 0.0) == pytest.approx(expected, abs=1e-6)


def test_a_draft_that_is_the_distribution_itself_is_always_taken() -> None:
    logits = torch.tensor([1.0, 2.0, 0.5])
    drawn = logits.softmax(-1)
    outcomes = _outcomes(lambda dice: Chooser(Sampling(temperature=1), dice).choose(logits, Guess(2, drawn)).token)
    assert outcomes[2] == pytest.approx(1)


# --- how much is drafted ---------------------------------------------------------------------------------------


def _drafts(how: NGram, text: Sequence[int], most: int = 99) -> list[int]:
    with how.drafting(SAMPLING, SeededDice(0), 99) as drafter:
        return [guess.token for guess in drafter.draft(text, most)]


def test_the_longest_context_that_occurred_decides_then_the_count_then_the_last() -> None:
    how = NGram(longest=3, shortest=1, most=1, token_cost=0.0)
    assert _drafts(how, [1, 2, 3, 9, 2, 3, 8, 2, 3, 8, 1, 2, 3]) == [9]
    assert _drafts(how, [2, 3, 9, 2, 3, 8, 2, 3, 8, 5, 2, 3]) == [8]
    assert _drafts(how, [3, 9, 5, 3, 8, 7, 3]) == [8]
    assert _drafts(how, [1, 2, 3]) == _drafts(how, [1]) == _drafts(how, []) == []


def test_a_draft_is_never_longer_than_asked() -> None:
    text = [1, 2, 3, 4] * 5
    assert _drafts(NGram(most=6, token_cost=0.0), text) == [1, 2, 3, 4, 1, 2]
    assert _drafts(NGram(token_cost=0.0), text, most=2) == [1, 2]
    assert _drafts(NGram(token_cost=0.0), text, most=0) == []


def test_drafts_become_shorter_where_they_fail_and_longer_where_they_hold() -> None:
    text = [1, 2, 3, 4] * 9
    lengths: dict[str, list[int]] = {}
    for what in ("hold", "fail"):
        with NGram(token_cost=0.2).drafting(SAMPLING, SeededDice(0), 99) as drafter:
            found = lengths.setdefault(what, [])
            for _ in range(40):
                found.append(len(drafter.draft(text, 99)))
                drafter.note(found[-1] if what == "hold" else 0, found[-1])
    assert lengths["hold"] == sorted(lengths["hold"]) and lengths["hold"][-1] == 16
    assert lengths["hold"][0] == lengths["fail"][0] > 2
    assert lengths["fail"][-1] == 0


def test_a_bad_stretch_does_not_end_drafting_for_good() -> None:
    acceptance = Acceptance(0.3)
    for _ in range(20):
        acceptance.note(0, 4)
    assert not acceptance.worth(acceptance.rate)
    for _ in range(200):
        acceptance.fade()
    assert acceptance.worth(acceptance.rate)


@pytest.mark.parametrize("wrong", [{"longest": 1}, {"shortest": 0}, {"most": 0}, {"token_cost": 1.0}])
def test_a_draft_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "longest" not in wrong else "shortest"):
        NGram(**wrong)
