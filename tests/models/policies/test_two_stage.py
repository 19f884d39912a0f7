"""TwoStage against a plain account of its two stages, on a small random Llama."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctxkit.models.local.policies.two_stage import TwoStage
from tests.models.policies.selections import DIMS, KV_HEADS, keys_of, some_ids, spied, started, tiny_engine, top

IDS = some_ids(140)
SINKS, RECENT, BLOCK = 2, 9, 16
POLICY = TwoStage(keep_tokens=10, sinks=SINKS, recent=RECENT, candidates=30, channels=4, block_tokens=BLOCK)


def _in_four_bits(keys: Tensor) -> Tensor:
    """[tokens, dims], each block of each dimension rounded to 16 values between its lowest and its highest."""
    rounded = torch.zeros_like(keys)
    for start in range(0, len(keys), BLOCK):
        block = keys[start : start + BLOCK]
        low, step = (
            block.min(0).values.half().float(),
            ((block.max(0).values - block.min(0).values) / 15).half().float(),
        )
        rounded[start : start + BLOCK] = low + step * ((block - low) / step).round().clamp(0, 15)
    return rounded


def _votes(q: Tensor, keys: Tensor) -> Tensor:
    """q: [KV heads, heads in a group, dims]. keys: [KV heads, tokens, dims]."""
    return sum(((keys[head] @ one) / DIMS**0.5).softmax(0) for head in range(KV_HEADS) for one in q[head])


def test_rough_votes_choose_candidates_and_exact_votes_tokens() -> None:
    engine = tiny_engine()
    policy, notes = spied(POLICY)
    context = started(engine, policy, IDS[:120])
    engine.step([context], [IDS[120]])
    for layer, keys in enumerate(keys_of(engine, IDS[:120])):
        some = keys[:, SINKS : 120 - RECENT + 1]
        whole = some.shape[1] // BLOCK * BLOCK
        q = notes[layer].q[:, :, 0]
        rough, strong = torch.zeros(KV_HEADS, whole, DIMS), torch.zeros_like(q)
        for head in range(KV_HEADS):
            channels = q[head].abs().sum(0).argsort(descending=True)[:4]
            rough[head][:, channels] = _in_four_bits(some[head, :whole])[:, channels]
            strong[head][:, channels] = q[head][:, channels]
        likely = [*top(_votes(strong, rough), 30), *range(whole, some.shape[1])]
        kept = top(_votes(q, some[:, likely]), 10)
        assert notes[layer].tokens == [[SINKS + likely[token] for token in kept]]


def test_a_step_reads_a_few_channels_the_candidates_and_what_is_shown() -> None:
    engine = tiny_engine()
    context = started(engine, POLICY, IDS[:120])
    engine.step([context], [IDS[120]])
    before = context.bytes_touched
    engine.step([context], [IDS[121]])
    channels = 6 * 4 * (BLOCK // 2 + 4)  # blocks, channels, bytes
    candidates = (30 + 15) * DIMS * 4  # 111 tokens are neither sinks nor recent, 15 of them in no whole block
    shown = (10 + SINKS + RECENT) * 2 * DIMS * 4
    assert context.bytes_touched - before == 2 * KV_HEADS * (channels + candidates + shown)


def test_it_finds_what_an_exact_vote_finds() -> None:
    """Candidates for all: the rough stage decides nothing."""
    engine = tiny_engine()
    rough, exact = spied(TwoStage(10, SINKS, RECENT, candidates=96, channels=1, block_tokens=BLOCK)), spied(POLICY)
    wide = spied(TwoStage(10, SINKS, RECENT, candidates=4096, block_tokens=BLOCK))
    for policy, _ in (rough, exact, wide):
        context = started(engine, policy, IDS[:120])
        engine.step([context], [IDS[120]])
    assert rough[1][0].tokens == wide[1][0].tokens != exact[1][0].tokens


def test_a_block_of_equal_keys_is_represented() -> None:
    made = POLICY.represent(torch.ones(1, 1, BLOCK, 3), torch.zeros(1, 1, BLOCK))
    assert made.shape == (1, 1, 3, BLOCK // 2 + 4)
    assert not made[..., : BLOCK // 2].any()


def test_an_odd_block_is_refused() -> None:
    with pytest.raises(ValueError, match="block_tokens"):
        TwoStage(block_tokens=7)
