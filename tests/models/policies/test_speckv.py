"""SpecKV keeps what the published compression with a look-ahead keeps, and the look-ahead leaves no trace."""

import pytest
import torch
from torch.nn.functional import max_pool1d

from ctxkit.errors import PolicyError
from ctxkit.models.local.lookahead import draft_answer, prefill_with_lookahead
from ctxkit.models.local.policies import SnapKV, SpecKV, StreamingLLM
from tests.models.policies.evicting import dense_stored, pair, random_ids, stored

POLICY = SpecKV(24, window=8)


def compress(dense, probabilities, tokens, drafted, policy):
    """dense holds prompt and draft."""
    for layer, seen in enumerate(probabilities):
        queries = policy.window + drafted
        most = seen[:, :, -queries:, : tokens - policy.window].amax((1, 2))
        most = max_pool1d(most[None], policy.pool, padding=policy.pool // 2, stride=1)[0]
        order = most.sort(dim=-1, descending=True, stable=True).indices  # a pool makes ties
        best = order[:, : policy.keep_tokens - policy.window]
        last = torch.arange(tokens - policy.window, tokens).expand(len(best), -1)
        dense.keep(layer, torch.cat([best, last], dim=1).sort(dim=1).values)
    dense.length = tokens


@pytest.mark.parametrize("drafted", [12, 1, 0, 150])
def test_the_same_tokens_stay_and_the_same_logits_come_out(drafted):
    engine, context, dense = pair(POLICY)
    prompt, draft = random_ids(60), random_ids(drafted, seed=3)
    ours = prefill_with_lookahead(engine, prompt, context, draft)
    logits, probabilities = dense.feed(prompt + draft)
    torch.testing.assert_close(ours, logits[59], atol=1e-4, rtol=1e-4)
    compress(dense, probabilities, 60, drafted, POLICY)
    for token in random_ids(12, seed=1):
        assert stored(context) == dense_stored(dense)
        ours = engine.step([context], [token])[0]
        logits, _ = dense.feed([token])
        torch.testing.assert_close(ours, logits[-1], atol=1e-4, rtol=1e-4)


def test_a_draft_changes_what_stays():
    kept = []
    for draft in (random_ids(40, seed=3), []):
        engine, context, _ = pair(POLICY)
        prefill_with_lookahead(engine, random_ids(200), context, draft)
        kept.append(stored(context))
    assert kept[0] != kept[1]


def test_the_text_is_the_prompt_alone_and_its_memory_too():
    engine, context, _ = pair(POLICY)
    prefill_with_lookahead(engine, random_ids(60), context, random_ids(100, seed=3))
    assert context.ids == random_ids(60)
    assert {len(kept) for kept in stored(context).values()} == {24}
    engine.close(context)
    assert engine.pool.used == 0


def test_a_prompt_shorter_than_the_window_is_kept_whole():
    engine, context, dense = pair(SpecKV(64, window=32))
    ours = prefill_with_lookahead(engine, [9], context, random_ids(5))
    torch.testing.assert_close(ours, dense.feed([9])[0][-1], atol=1e-4, rtol=1e-4)
    assert context.ids == [9]


def test_the_draft_is_the_greedy_answer_up_to_its_end():
    engine, _, dense = pair(POLICY)
    prompt, expected = random_ids(20), []
    logits, _ = dense.feed(prompt)
    for _ in range(6):
        expected.append(int(logits[-1].argmax()))
        logits, _ = dense.feed([expected[-1]])
    assert draft_answer(engine, prompt, 6) == expected
    assert draft_answer(engine, prompt, 6, eos_ids={expected[3]}) == expected[: expected.index(expected[3])]
    assert draft_answer(engine, prompt, 0) == []
    assert engine.pool.used == 0


def test_a_policy_that_does_not_look_or_cannot_go_back_is_refused():
    engine, context, _ = pair(StreamingLLM(4, 12))
    with pytest.raises(PolicyError, match="such as SpecKV"):
        prefill_with_lookahead(engine, random_ids(60), context, random_ids(5))
    drops = engine.new_context(SnapKV(24, window=8) | StreamingLLM(4, 12))
    with pytest.raises(PolicyError, match="cannot be taken back"):
        prefill_with_lookahead(engine, random_ids(60), drops, random_ids(80))
