"""SirLLM keeps what the published eviction keeps, and sees it as the published cache does."""

import numpy as np
import pytest
import torch

from ctxkit.models.local.policies import SirLLM
from tests.models.policies.evicting import pair, random_ids, stored


def evicted(values, sinks, entropy_tokens, cache):
    """Numbers of the tokens that stay: the highest, the first, and the last until the cache is full."""
    if len(values) <= cache:
        return list(range(len(values)))
    save = set(sorted(range(len(values)), key=lambda i: values[i], reverse=True)[:entropy_tokens]) | set(range(sinks))
    for i in reversed(range(len(values))):
        if len(save) < cache:
            save.add(i)
    return sorted(save)


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize(("sinks", "entropy_tokens", "recent"), [(4, 10, 12), (0, 20, 0), (2, 0, 6), (1, 0, 0)])
def test_turn_after_turn_the_same_tokens_stay(sinks, entropy_tokens, recent, decay):
    engine, context, _ = pair(SirLLM(sinks, entropy_tokens, recent, decay))
    values, positions = [], []
    for turn, tokens in enumerate([9, 30, 1, 25, 40]):
        start = len(context)
        engine.prefill(random_ids(tokens, seed=turn), context)
        positions += range(start, start + tokens)
        values += context.surprisal[start:].tolist()
        engine.settle(context, "turn")
        keep = evicted(values, sinks, entropy_tokens, sinks + entropy_tokens + recent)
        values, positions = [values[i] * decay for i in keep], [positions[i] for i in keep]
        assert set(map(tuple, stored(context).values())) == {tuple(positions)}


def test_what_stays_is_seen_without_holes():
    engine, context, dense = pair(SirLLM(2, 8, 10))
    first, second = random_ids(60), random_ids(30, seed=1)
    engine.prefill(first, context)
    engine.settle(context, "turn")
    dense.feed(first)
    kept = stored(context)[0, 0]
    for layer in range(dense.layers):
        dense.keep(layer, torch.tensor(kept).expand(dense.kv_heads, -1))
    dense.turn_keys([place - position for place, position in enumerate(kept)])
    expected, _ = dense.feed(second, at=len(kept))
    ours = engine.forward(second, context, keep=len(second))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    more, _ = dense.feed([7], at=len(kept) + len(second))
    torch.testing.assert_close(engine.step([context], [7])[0], more[-1], atol=1e-4, rtol=1e-4)


def test_surprisal_is_what_each_token_cost_however_the_text_was_fed():
    ids = random_ids(40)
    engine, context, dense = pair(SirLLM(4, 100, 100), prefill_tokens=7)
    engine.prefill(ids[:30], context)
    for token in ids[30:]:
        engine.step([context], [token])
    logits, _ = dense.feed(ids)
    cost = -logits[:-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    np.testing.assert_allclose(context.surprisal[1:], cost, atol=1e-4)
    assert context.surprisal[0] == pytest.approx(float(cost[:6].max()), abs=1e-4)  # of the first pass


def test_surprisal_of_what_was_kept_outlives_a_crop():
    engine, context, _ = pair(SirLLM(4, 100, 100))
    engine.prefill(random_ids(40), context)
    before = context.surprisal.copy()
    assert context.crop(30)
    engine.forward(random_ids(5, seed=1), context)
    np.testing.assert_array_equal(context.surprisal[:30], before[:30])
    assert context.surprisal[30] >= context.surprisal[31:].max()


def test_a_turn_without_end_stays_within_the_slack():
    engine, context, _ = pair(SirLLM(2, 8, 10, slack_tokens=16), prefill_tokens=8)
    engine.prefill(random_ids(100), context)
    held = []
    for token in random_ids(60, seed=1):
        engine.step([context], [token])
        held.append(context.tracks[0].tokens)
    assert max(held) <= 20 + 16
    assert min(held) >= 20


def test_turns_after_a_crop_are_forgotten():
    engine, context, _ = pair(SirLLM(2, 8, 10, 0.5))
    engine.prefill(random_ids(10), context)
    engine.settle(context, "turn")
    engine.prefill(random_ids(5), context)
    engine.settle(context, "turn")
    assert context.turns == [10, 15]
    assert context.crop(12)
    assert context.turns == [10]


@pytest.mark.parametrize("wrong", [{"sinks": -1}, {"decay": 1.5}, {"sinks": 0, "entropy_tokens": 0, "recent": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="sizes"):
        SirLLM(**wrong)
