"""Recycled attention against its published rule, on a small random Llama."""

from __future__ import annotations

import torch

from ctxkit.models.local.policies.recycled import Recycled
from tests.models.policies.selections import DIMS, KV_HEADS, keys_of, some_ids, spied, started, tiny_engine, top

IDS = some_ids(100)


def _decoded(policy: Recycled, tokens: int) -> list[list[list[int]] | None]:
    """What layer 0 was shown in each step after a prompt of 80."""
    engine = tiny_engine()
    spy, notes = spied(policy)
    context = started(engine, spy, IDS[:80])
    for token in IDS[80 : 80 + tokens]:
        engine.step([context], [token])
    return [note.tokens for note in notes if note.layer == 0]


def test_every_so_often_everything_is_seen_and_between_the_same_tokens_and_new_ones() -> None:
    shown = _decoded(Recycled(keep_tokens=10, every=3, pool=1), 7)
    assert [tokens is None for tokens in shown] == [True, False, False, True, False, False, True]
    assert shown[1] is not None and shown[2] is not None
    assert [row[:10] + [80] for row in shown[1]] == shown[1]  # 81 is the query's own
    assert shown[2] == [[*row, 81] for row in shown[1]]


def test_the_tokens_kept_are_those_with_the_most_attention_of_their_neighbours() -> None:
    engine = tiny_engine()
    policy, notes = spied(Recycled(keep_tokens=10, every=8, pool=3))
    context = started(engine, policy, IDS[:80])
    engine.step([context], [IDS[80]])
    engine.step([context], [IDS[81]])
    q, keys = notes[0].q[:, :, 0], keys_of(engine, IDS[:80])[0]
    shown = notes[2].tokens
    assert shown is not None
    for head in range(KV_HEADS):
        attention = (q[head] @ keys[head].T / DIMS**0.5).softmax(-1).sum(0)
        best = torch.stack([attention[max(0, at - 1) : at + 2].max() for at in range(80)])
        assert torch.equal(best[shown[head][:10]].sort().values, best.sort().values[-10:])
        assert top(attention, 1)[0] in shown[head]


def test_a_query_that_turned_away_sees_everything() -> None:
    assert [tokens is None for tokens in _decoded(Recycled(keep_tokens=10, cosine=-1.0), 3)] == [True, False, False]
    assert [tokens is None for tokens in _decoded(Recycled(keep_tokens=10, cosine=1.0), 3)] == [True, True, True]
