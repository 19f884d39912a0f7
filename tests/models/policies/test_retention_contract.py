"""What every retention policy owes: bounded memory, forks apart, honest crops, and nothing changed where all fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies import (
    H2O,
    Keyformer,
    MessageLedger,
    Policy,
    SirLLM,
    SnapKV,
    Span,
    SpecKV,
    StreamingLLM,
)
from ctxkit.testing import tiny_llama
from tests.models.policies.evicting import random_ids, stored

PAGE, PASS_TOKENS = 16, 32
SIZES = (1, 7, 40, 3, 16, 1, 1, 90, 33, 2)  # of the pieces that a text is fed in


@dataclass(frozen=True)
class Case:
    """limit: the most tokens per head after a pass, but for those since the last prompt where these always stay."""

    policy: Policy
    roomy: Policy
    smallest: Policy
    limit: int
    answers_stay: bool = False
    goes_back: bool = True


CASES = {
    "StreamingLLM": Case(StreamingLLM(4, 28), StreamingLLM(4, 996), StreamingLLM(0, 1), 32 + KVContext.slack_tokens),
    "SirLLM": Case(SirLLM(4, 16, 12, 0.9, 16), SirLLM(4, 500, 496), SirLLM(1, 0, 0, slack_tokens=0), 32 + 16),
    "H2O": Case(H2O(32, 8), H2O(1000, 8), H2O(1, 1), 32, goes_back=False),
    "Keyformer": Case(Keyformer(32, 8), Keyformer(1000, 8), Keyformer(1, 0), 32, goes_back=False),
    "SnapKV": Case(SnapKV(32, 8), SnapKV(1000, 8), SnapKV(1, 1), 32, answers_stay=True),
    "SpecKV": Case(SpecKV(32, 8), SpecKV(1000, 8), SpecKV(1, 1), 32, answers_stay=True),
    "MessageLedger": Case(MessageLedger(32, 4, 16), MessageLedger(1000), MessageLedger(1, 0, 0), 32 + 16),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_llama(), prefill_tokens=PASS_TOKENS)


def opened(engine: Engine, policy: Policy, message_tokens: int = 9) -> KVContext:
    """A context whose text consists of short messages, the first of them pinned."""
    context = engine.new_context(policy)
    starts = range(0, 1000, message_tokens)
    context.spans = tuple(Span(start, start + message_tokens, pinned=start == 0) for start in starts)
    return context


def pieces(ids: Sequence[int]) -> list[Sequence[int]]:
    ends = np.cumsum(np.tile(SIZES, 1 + len(ids) // sum(SIZES)))
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < len(ids)]


def feed(engine: Engine, context: KVContext, ids: Sequence[int]) -> torch.Tensor:
    """A piece of one token is stepped, a larger one read as a prompt and the end of a turn; the last logits."""
    logits = torch.zeros(0)
    for piece in pieces(ids):
        if len(piece) == 1:
            logits = engine.step([context], piece)[0]
        else:
            engine.settle(context, "turn")
            found = engine.prefill(piece, context)
            assert found is not None
            logits = found
    return logits


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4, rtol=1e-4)


@EVERY
def test_memory_stays_within_budget_and_slack_however_a_long_text_comes(engine, case):
    context = opened(engine, case.policy)
    since = 0
    for piece in pieces(random_ids(600)):
        feed(engine, context, piece) if len(piece) == 1 else engine.prefill(piece, context)
        since = since + 1 if len(piece) == 1 else 0
        limit = case.limit + (since if case.answers_stay else 0)
        for track in context.tracks:
            assert track.tokens <= limit
            assert (track.pages >= 0).sum() <= len(track.members) * (2 * -(-limit // PAGE) + 2)
    assert len(context) == 600
    assert max(map(len, stored(context).values())) < 150
    engine.close(context)
    assert engine.pool.used == 0


@EVERY
def test_forks_fed_differently_give_what_fresh_contexts_give(engine, case):
    shared, first, second = random_ids(60), random_ids(50, seed=1), random_ids(60, seed=2)
    context = opened(engine, case.policy | Policy())
    feed(engine, context, shared)
    fork = context.fork()
    found = {}
    for one, two in zip(pieces(first), pieces(second), strict=False):  # in turns
        found[0], found[1] = feed(engine, context, one), feed(engine, fork, two)
    for index, (forked, ids) in enumerate([(context, first), (fork, second)]):
        fresh = opened(engine, case.policy | Policy())
        feed(engine, fresh, shared)
        for piece in pieces(ids)[: min(len(pieces(first)), len(pieces(second)))]:
            logits = feed(engine, fresh, piece)
        assert stored(forked) == stored(fresh)
        assert same(found[index], logits)
        engine.close(fresh)
    engine.close(context)
    engine.close(fork)
    assert engine.pool.used == 0


@EVERY
def test_a_crop_that_is_granted_leaves_no_trace(engine, case):
    context = opened(engine, case.policy)
    before = engine.forward(random_ids(28), context, keep=8)
    assert context.crop(20) is case.goes_back
    if case.goes_back:
        assert (len(context), context.tracks[0].tokens) == (20, 20)
        assert same(engine.forward(random_ids(28)[20:], context, keep=8), before)
    assert context.crop(28)
    assert len(context) == 28
    engine.close(context)
    assert engine.pool.used == 0


@EVERY
def test_a_crop_to_what_is_gone_is_refused_and_changes_nothing(engine, case):
    context, untouched = opened(engine, case.policy), opened(engine, case.policy)
    for one in (context, untouched):
        feed(engine, one, random_ids(120))
    assert not context.crop(60)
    assert context.ids == untouched.ids
    assert stored(context) == stored(untouched)
    more = random_ids(20, seed=1)
    assert torch.equal(feed(engine, context, more), feed(engine, untouched, more))
    engine.close(context)
    engine.close(untouched)


@EVERY
def test_what_is_smaller_than_the_budget_is_attended_to_in_full(engine, case):
    ids = random_ids(110)
    context, full = opened(engine, case.roomy), opened(engine, Policy())
    assert same(feed(engine, context, ids), feed(engine, full, ids))
    assert set(map(len, stored(context).values())) == {110}
    engine.close(context)
    engine.close(full)


@EVERY
def test_a_prompt_of_one_token_is_read_and_answered(engine, case):
    context, full = opened(engine, case.policy), opened(engine, Policy())
    for one in (context, full):
        engine.prefill([7], one)
        engine.step([one], [8])
        engine.settle(one, "turn")
    assert same(engine.step([context], [9]), engine.step([full], [9]))
    engine.close(context)
    engine.close(full)


@EVERY
def test_a_budget_of_one_token_still_answers(engine, case):
    context = engine.new_context(case.smallest)
    context.spans = tuple(Span(start, start + 1) for start in range(200))
    for token in random_ids(20):
        logits = engine.prefill([token], context)
        assert logits is not None
        assert logits.isfinite().all()
    engine.settle(context, "turn")
    expected = KVContext.slack_tokens if isinstance(case.policy, StreamingLLM) else 1
    assert max(map(len, stored(context).values())) <= expected
    engine.close(context)


@dataclass(frozen=True)
class Harmless(Policy):
    """Adds nothing to every logit and scales every query by one."""

    def bias(self, view, layer):
        return np.zeros((1, len(view.runs)), np.float32)

    def query_scale(self, positions, layer):
        return np.ones(len(positions), np.float32)


@EVERY
@pytest.mark.parametrize("first", [True, False])
def test_beside_a_policy_that_does_nothing_it_does_the_same(engine, case, first):
    alone = opened(engine, case.policy)
    beside = opened(engine, case.policy | Harmless() if first else Harmless() | case.policy)
    ids = random_ids(110)
    assert same(feed(engine, beside, ids), feed(engine, alone, ids))
    assert stored(beside) == stored(alone)
    engine.close(alone)
    engine.close(beside)
