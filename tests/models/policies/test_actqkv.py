"""ActQKV against its published rule, on a small random Llama."""

from __future__ import annotations

import math

import pytest
import torch

from ctxkit.models.local.policies.actqkv import ActQKV, shares
from tests.models.policies.selections import DIMS, spied, started, tiny_engine, top
from tests.models.policies.test_infllm import BLOCK, IDS, RECENT, REPRESENTATIVES, SINKS, probes, representatives

POLICY = ActQKV(blocks=3, block_tokens=BLOCK, representatives=REPRESENTATIVES, sinks=SINKS, recent=RECENT)
BLOCKS = (120 - RECENT + 1 - SINKS) // BLOCK


def test_in_a_prompt_queries_that_stand_out_weigh_more() -> None:
    engine = tiny_engine()
    policy, notes = spied(POLICY)
    context = started(engine, policy, IDS[:120])
    engine.forward(IDS[120:128], context)
    for layer in range(2):
        probe = torch.zeros(2, DIMS)
        for head, of in enumerate(probes(notes[layer].q, 120)):
            for q in of:  # [queries, dims]
                away = (q - q.mean(0)) ** 2 / q.var(0, correction=0)
                weight = away.mean(1) / away.mean(1).sum()
                probe[head] += weight @ q
        scores = (representatives(engine, IDS[:120], layer, BLOCKS) * probe[:, None]).sum((0, 2))
        tokens = notes[layer].tokens
        assert tokens is not None
        blocks = sorted({(token - SINKS) // BLOCK for token in tokens[0]} - {BLOCKS})
        assert blocks == top(scores, 3)


def test_at_decode_layers_have_blocks_by_their_entropy_one_token_ago() -> None:
    engine = tiny_engine()
    policy, notes = spied(POLICY)
    context = started(engine, policy, IDS[:120])
    engine.step([context], [IDS[120]])
    entropies = {}
    for layer in range(2):
        probe = probes(notes[layer].q, 120).mean(2).sum(1)
        scores = (representatives(engine, IDS[:120], layer, BLOCKS) * probe[:, None]).sum((0, 2))
        chances = (scores / (4 * DIMS**0.5)).softmax(0)
        entropies[layer] = -sum(float(chance) * math.log(chance) for chance in chances)
    known = context.states[policy, 0, "all layers"]["entropies"][2]
    assert known == pytest.approx(entropies, rel=1e-4)
    engine.step([context], [IDS[121]])
    shown = [len(note.tokens[0]) // BLOCK for note in notes[-2:] if note.tokens]
    assert shown == list(shares(entropies, 6).values())
    assert sum(shown) == 6


def test_shares_add_up_and_follow_the_weights() -> None:
    assert shares({0: 1.0, 1: 1.0, 2: 1.0}, 9) == {0: 3, 1: 3, 2: 3}
    assert shares({0: 3.0, 1: 1.0}, 10) == {0: 7, 1: 3}
    assert shares({0: 1e-12, 1: 5.0}, 8) == {0: 1, 1: 7}
    assert shares({0: 1.0, 1: 1.0, 2: 1.0}, 4) == {0: 2, 1: 1, 2: 1}
