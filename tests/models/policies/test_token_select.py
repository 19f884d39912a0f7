"""TokenSelect against its published rule, on a small random Llama."""

from __future__ import annotations

import torch

from ctxkit.models.local.paging.evidence import Watched
from ctxkit.models.local.policies.token_select import TokenSelect
from tests.models.policies.selections import DIMS, keys_of, some_ids, spied, started, tiny_engine, top

IDS = some_ids(140)


def _votes(q: torch.Tensor, keys: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """float32 [candidates]: one softmax per head over the candidates, summed."""
    found = torch.zeros(end - start)
    for head, of in enumerate(q):
        for one in of:
            found += (keys[head, start:end] @ one.mean(0) / DIMS**0.5).softmax(0)
    return found


def test_a_pass_shows_the_tokens_with_the_largest_soft_vote_of_its_mean_query() -> None:
    engine = tiny_engine()
    policy, notes = spied(TokenSelect(keep_tokens=12, sinks=3, recent=10, reuse_cosine=None))
    context = started(engine, policy, IDS[:120])
    engine.forward(IDS[120:128], context)
    for layer, keys in enumerate(keys_of(engine, IDS[:120])):
        votes = _votes(notes[layer].q, keys, 3, 111)  # the first query, at 120, sees 111 and what is behind it
        assert notes[layer].tokens == [[3 + token for token in top(votes, 12)]]


def test_pooling_gives_a_token_the_largest_vote_of_its_neighbours() -> None:
    engine = tiny_engine()
    policy, notes = spied(TokenSelect(keep_tokens=12, sinks=3, recent=10, pool=5, reuse_cosine=None))
    context = started(engine, policy, IDS[:120])
    engine.step([context], [IDS[120]])
    votes = _votes(notes[0].q, keys_of(engine, IDS[:120])[0], 3, 111)
    best = torch.stack([votes[max(0, at - 2) : at + 3].max() for at in range(len(votes))])
    tokens = notes[0].tokens
    assert tokens is not None
    chosen = torch.tensor(tokens[0]) - 3
    assert torch.equal(best[chosen].sort().values, best.sort().values[-12:])  # as good; neighbours may be equal


def test_packed_tokens_are_seen_as_if_they_followed_each_other() -> None:
    engine = tiny_engine()
    seen: list[Watched] = []
    policy, notes = spied(TokenSelect(keep_tokens=6, sinks=2, recent=4, reuse_cosine=None, packed=True))
    context = started(engine, policy, IDS[:120])
    engine.forward(IDS[120:121], context, watch=seen.append)
    tokens = notes[0].tokens
    assert tokens is not None
    visible = [0, 1, *tokens[0], 117, 118, 119, 120]
    assert seen[0].positions.tolist() == visible
    reference = keys_of(engine, [IDS[at] for at in visible])[0]  # layer 0: keys depend on the token and its place only
    q = keys_of_query(engine, visible)
    expected = torch.einsum("kgd,ktd->kgt", q, reference) / DIMS**0.5
    torch.testing.assert_close(seen[0].logits()[:, :, 0], expected, rtol=1e-4, atol=1e-4)


def keys_of_query(engine: object, visible: list[int]) -> torch.Tensor:
    """The last query of a context that holds only the visible tokens, [KV heads, heads in a group, dims]."""
    other = tiny_engine()
    asked: list[Watched] = []
    context = other.new_context()
    other.prefill([IDS[at] for at in visible[:-1]], context)
    other.forward([IDS[visible[-1]]], context, watch=asked.append)
    return asked[0].call.query[0, :, 0].view(2, 2, DIMS)


def test_a_query_like_the_last_shows_the_same_tokens_and_reads_no_others() -> None:
    engine = tiny_engine()
    policy, notes = spied(TokenSelect(keep_tokens=12, sinks=3, recent=10, reuse_cosine=-1.0))
    context = started(engine, policy, IDS[:120])
    touched = []
    for token in IDS[120:123]:
        before = context.bytes_touched
        engine.step([context], [token])
        touched.append(context.bytes_touched - before)
    assert notes[0].tokens == notes[2].tokens == notes[4].tokens
    visible = 2 * 2 * (12 + 3 + 10) * 2 * DIMS * 4  # layers, KV heads, tokens, key and value, float32
    scored = 2 * 2 * (111 - 3) * DIMS * 4
    assert touched == [visible + scored, visible, visible]


def test_a_query_unlike_the_last_chooses_anew() -> None:
    engine = tiny_engine()
    policy, notes = spied(TokenSelect(keep_tokens=12, sinks=3, recent=10, reuse_cosine=1.0))
    context = started(engine, policy, IDS[:120])
    engine.step([context], [IDS[120]])
    engine.step([context], [IDS[121]])
    assert notes[0].tokens != notes[2].tokens
