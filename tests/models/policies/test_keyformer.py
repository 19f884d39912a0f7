"""Keyformer keeps what the published eviction keeps, given the same noise."""

import numpy as np
import pytest
import torch

from ctxkit.models.local.policies import H2O, Keyformer
from tests.models.policies.evicting import dense_stored, pair, random_ids, stored

BUDGET, RECENT, SEED, DELTA = 24, 8, 5, 0.5


def evict(dense, scores, probabilities, step, temperature):
    """One round; a softmax of logits and noise is the same as one of log probabilities and noise."""
    for layer, seen in enumerate(probabilities):
        rounds = []
        for head, of_group in enumerate(seen):
            draws = np.random.default_rng((SEED, layer, layer * dense.kv_heads + head, step))
            waits = draws.standard_exponential((1, *of_group.shape), dtype=np.float32)[0]
            noisy = (of_group.log() - torch.from_numpy(waits).log()) / temperature
            rounds.append(noisy.softmax(-1).sum((0, 1)))
        new = torch.stack(rounds)
        new[:, : scores[layer].shape[1]] += scores[layer]
        length = new.shape[1]
        keys = new[:, : length - RECENT].topk(BUDGET - RECENT, dim=-1).indices
        last = torch.arange(length - RECENT, length).expand(len(new), -1)
        index = torch.cat([keys, last], dim=1).sort(dim=1).values
        dense.keep(layer, index)
        scores[layer] = new.gather(1, index)


def test_the_same_tokens_stay_and_the_same_logits_come_out():
    engine, context, dense = pair(Keyformer(BUDGET, RECENT, tau_delta=DELTA, seed=SEED))
    scores = [torch.zeros(dense.kv_heads, 0)] * dense.layers
    prompt = random_ids(40)
    ours = engine.prefill(prompt, context)
    logits, probabilities = dense.feed(prompt)
    evict(dense, scores, probabilities, 0, 1.0)
    for step, token in enumerate(random_ids(16, seed=1), start=1):
        assert stored(context) == dense_stored(dense)
        torch.testing.assert_close(ours, logits[-1], atol=1e-4, rtol=1e-4)
        ours = engine.step([context], [token])[0]
        logits, probabilities = dense.feed([token])
        evict(dense, scores, probabilities, step, 1.0 + step * DELTA)


def kept_with(policy):
    engine, context, _ = pair(policy)
    engine.prefill(random_ids(200), context)
    for token in random_ids(10, seed=1):
        engine.step([context], [token])
    return stored(context)


def test_one_seed_gives_one_choice_and_another_seed_another():
    assert kept_with(Keyformer(32, 8, seed=1)) == kept_with(Keyformer(32, 8, seed=1))
    assert kept_with(Keyformer(32, 8, seed=1)) != kept_with(Keyformer(32, 8, seed=2))


def test_a_fork_draws_the_noise_that_its_origin_would_have_drawn():
    engine, context, _ = pair(Keyformer(16, 4))
    engine.prefill(random_ids(40), context)
    fork = context.fork()
    for one in (context, fork):
        for token in random_ids(10, seed=1):
            engine.step([one], [token])
    assert stored(context) == stored(fork)


def test_noise_is_the_difference_to_h2o():
    assert kept_with(Keyformer(32, 8)) != kept_with(H2O(32, 8))


def test_the_temperature_begins_anew_with_every_prompt_and_its_blocks_do_not_count_as_steps():
    engine, context, _ = pair(Keyformer(16, 4))
    steps = lambda: {state["step"] for key, state in context.states.items() if key[-1] == "observed"}  # noqa: E731
    engine.prefill(random_ids(129), context)  # observed as 128 queries and one
    assert steps() == {0}
    engine.step([context], [5])
    engine.step([context], [6])
    assert steps() == {2}
    engine.prefill(random_ids(9), context)
    assert steps() == {0}


@pytest.mark.parametrize("wrong", [{"tau_init": 0.0}, {"tau_delta": -0.1}, {"seed": -1}, {"budget_tokens": 0}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        Keyformer(**wrong)
