"""SnapKV keeps what the published compression keeps."""

import pytest
import torch
from torch.nn.functional import avg_pool1d, max_pool1d

from ctxkit.models.local.policies import SnapKV
from tests.models.policies.evicting import dense_stored, pair, random_ids, stored


def compress(dense, probabilities, keep_tokens, window, pool, pooling):
    for layer, seen in enumerate(probabilities):
        votes = seen[:, :, -window:, :-window].sum((1, 2))  # [KV heads, tokens before the window]
        neighbours = avg_pool1d if pooling == "average" else max_pool1d
        votes = neighbours(votes[None], pool, padding=pool // 2, stride=1)[0]
        best = votes.sort(dim=-1, descending=True, stable=True).indices[:, : keep_tokens - window]  # a pool makes ties
        last = torch.arange(seen.shape[-1] - window, seen.shape[-1]).expand(len(best), -1)
        dense.keep(layer, torch.cat([best, last], dim=1).sort(dim=1).values)


@pytest.mark.parametrize(
    ("policy", "tokens"),
    [
        (SnapKV(24, window=8), 60),
        (SnapKV(24, window=8, pool=7, pooling="max"), 60),
        (SnapKV(20, window=16, pool=1), 21),
        (SnapKV(140, window=135, pool=3), 150),  # more queries than are observed at a time
        (SnapKV(1, window=1), 30),
    ],
)
def test_the_same_tokens_stay_and_the_same_logits_come_out(policy, tokens):
    engine, context, dense = pair(policy)
    prompt = random_ids(tokens)
    ours = engine.prefill(prompt, context)
    logits, probabilities = dense.feed(prompt)
    compress(dense, probabilities, policy.keep_tokens, policy.window, policy.pool, policy.pooling)
    for token in random_ids(12, seed=1):
        assert stored(context) == dense_stored(dense)
        torch.testing.assert_close(ours, logits[-1], atol=1e-4, rtol=1e-4)
        ours = engine.step([context], [token])[0]
        logits, _ = dense.feed([token])


def test_chunks_of_a_prompt_do_not_change_what_stays():
    engine, context, _ = pair(SnapKV(24, window=8))
    chunked, other, _ = pair(SnapKV(24, window=8), prefill_tokens=7)
    engine.prefill(random_ids(60), context)
    chunked.prefill(random_ids(60), other)
    assert stored(context) == stored(other)


def test_an_answer_is_kept_and_the_next_prompt_chooses_among_all():
    engine, context, _ = pair(SnapKV(24, window=8))
    engine.prefill(random_ids(60), context)
    for token in random_ids(20, seed=1):
        engine.step([context], [token])
    assert {len(kept) for kept in stored(context).values()} == {44}
    engine.prefill(random_ids(10, seed=2), context)
    assert {len(kept) for kept in stored(context).values()} == {24}
    assert all(kept[-8:] == list(range(82, 90)) for kept in stored(context).values())


def test_a_second_window_forgets_the_scores_of_the_first():
    engine, context, _ = pair(SnapKV(64, window=8))
    engine.prefill(random_ids(30), context)
    engine.step([context], [7])
    engine.prefill(random_ids(30, seed=1), context)
    # 8 queries, 2 heads in a group, each of probability 1 in all
    assert all(track.scores.sum() == pytest.approx(16, abs=1e-3) for track in context.tracks)


@pytest.mark.parametrize("wrong", [{"keep_tokens": 63}, {"window": 0}, {"pool": 4}, {"pool": -1}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="keep_tokens"):
        SnapKV(**wrong)
