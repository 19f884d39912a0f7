"""TidalDecode against its published rule, on a small random Llama."""

from __future__ import annotations

from ctxkit.models.local.policies.tidal_decode import TidalDecode
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
)

IDS = some_ids(100)


def test_later_layers_see_what_the_selecting_layer_attended_to_most() -> None:
    engine = tiny_engine()
    policy, notes = spied(TidalDecode(keep_tokens=10, select_layers=(0,)))
    context = started(engine, policy, IDS[:90])
    engine.step([context], [IDS[90]])
    q, keys = notes[0].q[:, :, 0], keys_of(engine, IDS[:90])[0]
    expected = []
    for head in range(KV_HEADS):
        attention = (q[head] @ keys[head].T / DIMS**0.5).softmax(-1)  # [heads in a group, tokens]
        expected.append(top(attention.sum(0), 10))
    assert notes[0].tokens is None  # the selecting layer sees everything
    assert notes[1].tokens == expected


def test_a_second_selecting_layer_replaces_the_choice() -> None:
    engine = tiny_engine()
    policy, notes = spied(TidalDecode(keep_tokens=10, select_layers=(0, 1)))
    context = started(engine, policy, IDS[:90])
    engine.step([context], [IDS[90]])
    assert [note.tokens for note in notes[-2:]] == [None, None]
    q = attention_of(engine, IDS[:91])[1][:, :, -1, :90].sum(1)  # of layer 1, whose input full attention made
    kept = context.states[context.policy, 0, "all layers"]["choice"].positions
    assert [row.tolist() for row in kept] == [top(one, 10) for one in q]


def test_layers_before_the_first_selecting_one_see_everything() -> None:
    engine = tiny_engine()
    policy, notes = spied(TidalDecode(keep_tokens=10, select_layers=(1,)))
    context = started(engine, policy, IDS[:90])
    engine.step([context], [IDS[90]])
    assert [note.tokens for note in notes] == [None, None]
