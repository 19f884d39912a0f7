"""InfLLM against its published rule, on a small random Llama."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.evidence import Watched
from ctxkit.models.local.policies.infllm import InfLLM
from tests.models.policies.selections import (
    DIMS,
    KV_HEADS,
    attention_of,
    keys_of,
    some_ids,
    spied,
    started,
    tiny_engine,
    top,
    turned,
)

IDS = some_ids(140)
SINKS, RECENT, BLOCK, REPRESENTATIVES = 3, 24, 8, 2
POLICY = InfLLM(blocks=3, block_tokens=BLOCK, representatives=REPRESENTATIVES, sinks=SINKS, recent=RECENT)


def representatives(engine: Engine, ids: list[int], layer: int, count: int) -> Tensor:
    """[KV heads, blocks, dims]: per block, the mean unrotated key of those with the most attention from near."""
    near = torch.arange(len(ids))[:, None] - torch.arange(len(ids)) < RECENT
    mass = (attention_of(engine, ids)[layer] * near).sum((1, 2))  # [KV heads, tokens]
    keys = turned(keys_of(engine, ids)[layer], -torch.arange(len(ids)))
    found = torch.zeros(KV_HEADS, count, DIMS)
    for head in range(KV_HEADS):
        for block in range(count):
            start = SINKS + block * BLOCK
            best = top(mass[head, start : start + BLOCK], REPRESENTATIVES)
            found[head, block] = keys[head, [start + at for at in best]].mean(0)
    return found


def probes(q: Tensor, first_query: int) -> Tensor:
    """The queries as if each stood RECENT before what it meets, [KV heads, heads in a group, queries, dims]."""
    return turned(q, RECENT - first_query - torch.arange(q.shape[2]))


@pytest.mark.parametrize("tokens", [1, 8])
def test_one_choice_for_all_heads_by_the_representatives_of_each_block(tokens: int) -> None:
    engine = tiny_engine()
    policy, notes = spied(POLICY)
    context = started(engine, policy, IDS[:120])
    engine.forward(IDS[120 : 120 + tokens], context)
    candidates = range(SINKS, 120 - RECENT + 1)
    blocks = len(candidates) // BLOCK
    for layer in range(2):
        probe = probes(notes[layer].q, 120).mean(2).sum(1)
        scores = (representatives(engine, IDS[:120], layer, blocks) * probe[:, None]).sum((0, 2))
        expected = [SINKS + BLOCK * block + at for block in top(scores, 3) for at in range(BLOCK)]
        assert notes[layer].tokens == [[*expected, *candidates[blocks * BLOCK :]]]


def _step(policy: InfLLM) -> tuple[Watched, Tensor, Tensor]:
    """Layer 0 of one step, its unrotated query [KV heads, heads in a group, dims] and keys of all tokens."""
    engine = tiny_engine()
    seen: list[Watched] = []
    context = started(engine, policy, IDS[:120])
    engine.forward([IDS[120]], context, watch=seen.append)
    keys = turned(keys_of(engine, IDS[:121])[0], -torch.arange(121))
    q = turned(seen[0].call.query[0].view(KV_HEADS, 2, 1, DIMS), torch.tensor([-120]))[:, :, 0]
    return seen[0], q, keys


def _logits(watched: Watched, q: Tensor, keys: Tensor, distances: Tensor) -> Tensor:
    """[KV heads, heads in a group, tokens seen], each token at its distance."""
    chosen = turned(keys[:, watched.positions], -distances)
    return torch.einsum("kgd,ktd->kgt", q, chosen) / DIMS**0.5


def test_all_tokens_out_of_the_window_are_seen_at_its_distance() -> None:
    watched, q, keys = _step(POLICY)
    distances = (120 - torch.from_numpy(watched.positions)).clamp_max(RECENT)
    expected = _logits(watched, q, keys, distances)
    torch.testing.assert_close(watched.logits()[:, :, 0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(watched.lse[:, :, 0], expected.logsumexp(-1), rtol=1e-4, atol=1e-4)


def test_seen_by_runs_no_token_is_farther_than_the_window_nor_nearer_by_a_page() -> None:
    watched, q, keys = _step(InfLLM(3, BLOCK, REPRESENTATIVES, SINKS, RECENT, exact=False))
    logits = watched.logits()[:, :, 0]
    far = 120 - torch.from_numpy(watched.positions) >= RECENT
    found = torch.zeros(len(far), dtype=torch.bool)
    for nearer in range(16):
        distances = torch.where(far, RECENT - nearer, 120 - torch.from_numpy(watched.positions))
        found |= torch.isclose(_logits(watched, q, keys, distances), logits, rtol=1e-4, atol=1e-4).all(0).all(0)
    assert found.all()
