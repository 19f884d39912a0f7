"""Quest against its published bound, on a small random Llama."""

from __future__ import annotations

import torch

from ctxkit.models.local.policies.quest import Quest
from tests.models.policies.selections import KV_HEADS, keys_of, some_ids, spied, started, tiny_engine, top

IDS = some_ids(130)


def test_each_kv_head_shows_the_pages_with_the_largest_bound_and_the_last_tokens() -> None:
    engine = tiny_engine()
    policy, notes = spied(Quest(keep_tokens=24, page=8, dense_layers=0))
    context = started(engine, policy, IDS[:116])
    engine.step([context], [IDS[116]])
    for layer, keys in enumerate(keys_of(engine, IDS[:116])):
        pages = keys[:, : 14 * 8].view(KV_HEADS, 14, 8, -1)
        expected = []
        for head in range(KV_HEADS):
            q = notes[layer].q[head, :, 0]  # [heads in a group, dims]
            low, high = pages[head].min(1).values, pages[head].max(1).values
            bound = torch.maximum(q[:, None] * low, q[:, None] * high).sum(-1).max(0).values
            expected.append([8 * page + at for page in top(bound, 3) for at in range(8)] + [112, 113, 114, 115])
        assert notes[layer].tokens == expected


def test_dense_layers_and_prompts_see_everything() -> None:
    engine = tiny_engine(prefill_tokens=20)
    policy, notes = spied(Quest(keep_tokens=8, page=8, dense_layers=1))
    context = started(engine, policy, IDS[:116])
    assert all(note.tokens is None for note in notes)
    engine.step([context], [IDS[116]])
    assert notes[-2].tokens is None
    assert notes[-1].tokens is not None


def test_bounds_are_made_once_per_page_and_read_in_every_step() -> None:
    engine = tiny_engine()
    context = started(engine, Quest(keep_tokens=24, page=8, dense_layers=0), IDS[:116])
    touched = []
    for token in IDS[116:119]:
        before = context.bytes_touched
        engine.step([context], [token])
        touched.append(context.bytes_touched - before)
    heads, key = 2 * 2, 16 * 4
    visible = [heads * (24 + rest + 1) * 2 * key for rest in (4, 5, 6)]
    bounds = heads * 14 * 2 * key
    made = heads * 14 * 8 * key
    assert touched == [visible[0] + bounds + made, visible[1] + bounds, visible[2] + bounds]
