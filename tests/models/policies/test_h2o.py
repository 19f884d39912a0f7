"""H2O keeps what the published eviction keeps, step by step."""

import pytest
import torch

from ctxkit.models.local.policies import H2O
from tests.models.policies.evicting import dense_stored, pair, random_ids, stored


def evict(dense, scores, probabilities, budget, recent):
    """One round: add up, take the heaviest of the older ones and the last `recent`."""
    for layer, seen in enumerate(probabilities):
        new = seen.sum((1, 2))  # [KV heads, stored]
        new[:, : scores[layer].shape[1]] += scores[layer]
        length = new.shape[1]
        if length > budget:
            heavy = new[:, : length - recent].topk(budget - recent, dim=-1).indices
            last = torch.arange(length - recent, length).expand(len(new), -1)
            index = torch.cat([heavy, last], dim=1).sort(dim=1).values
            dense.keep(layer, index)
            new = new.gather(1, index)
        scores[layer] = new


@pytest.mark.parametrize(("budget", "recent"), [(24, 8), (16, 0), (5, 5), (1, 1)])
def test_the_same_tokens_stay_and_the_same_logits_come_out(budget, recent):
    engine, context, dense = pair(H2O(budget, recent))
    scores = [torch.zeros(dense.kv_heads, 0)] * dense.layers
    prompt = random_ids(40)
    ours = engine.prefill(prompt, context)
    logits, probabilities = dense.feed(prompt)
    evict(dense, scores, probabilities, budget, recent)
    for token in random_ids(20, seed=1):
        assert stored(context) == dense_stored(dense)
        torch.testing.assert_close(ours, logits[-1], atol=1e-4, rtol=1e-4)
        ours = engine.step([context], [token])[0]
        logits, probabilities = dense.feed([token])
        evict(dense, scores, probabilities, budget, recent)
    engine.close(context)


def test_heads_of_one_layer_keep_different_tokens():
    engine, context, _ = pair(H2O(16, 4))
    engine.prefill(random_ids(60), context)
    assert len({tuple(kept) for kept in stored(context).values()}) > 1


def test_a_prompt_in_several_passes_never_holds_more_than_budget_and_pass():
    engine, context, _ = pair(H2O(16, 4), prefill_tokens=8)
    held = []
    engine.prefill(random_ids(50), context, stopped=lambda: bool(held.append(context.tracks[0].tokens)))
    assert max(held) == 16


@pytest.mark.parametrize("sizes", [(0, 0), (4, 5), (4, -1)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="budget_tokens"):
        H2O(*sizes)
