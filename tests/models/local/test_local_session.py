"""A session's text is what it says it is, whatever was read twice, dropped, branched or gone back in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctxkit.errors import MemoryInsufficient, PromptError
from ctxkit.models import LocalModel
from ctxkit.models.local.policies import H2O, Full, InfLLM, MessageLedger, Policy, SirLLM, Span, StreamingLLM
from ctxkit.models.local.session import Synced
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_llama, tiny_model

IDS = list(np.random.default_rng(0).integers(3, 270, 400))
POLICIES: list[Policy] = [Full(), StreamingLLM(4, 60)]


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return tiny_model()


def _fresh(model: LocalModel, ids: list[int], policy: Policy) -> np.ndarray:
    with model.session(policy) as session:
        return session.step(ids)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_however_the_text_is_read_the_logits_are_the_same(model: LocalModel, policy: Policy) -> None:
    with model.session(policy) as session:
        for start, end in ((0, 1), (1, 130), (130, 131), (131, 400)):
            found = session.step(IDS[start:end])
    np.testing.assert_allclose(found, _fresh(model, IDS, policy), atol=1e-4)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("tokens", [1, 20, 333, 399, 400])
def test_going_back_gives_what_was_there(model: LocalModel, policy: Policy, tokens: int) -> None:
    with model.session(policy) as session:
        session.step(IDS)
        session.crop(tokens)
        assert session.ids == tuple(IDS[:tokens])
        np.testing.assert_allclose(session.logits, _fresh(model, IDS[:tokens], policy), atol=1e-4)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_branches_do_not_see_each_other(model: LocalModel, policy: Policy) -> None:
    with model.session(policy) as session:
        session.step(IDS[:100])
        with session.fork() as other:
            one, two = session.step(IDS[100:200]), other.step(IDS[200:300])
    np.testing.assert_allclose(one, _fresh(model, IDS[:200], policy), atol=1e-4)
    np.testing.assert_allclose(two, _fresh(model, IDS[:100] + IDS[200:300], policy), atol=1e-4)


def test_a_branch_costs_no_memory_until_it_differs(model: LocalModel) -> None:
    pool = model.engine.pool
    with model.session() as session:
        session.step(IDS)
        used = pool.used
        with session.fork() as other:
            assert pool.used == used
            other.step(IDS[:1])
            assert used < pool.used <= used + 2 * len(other.context.tracks[0].members)
        assert pool.used == used
    assert pool.used == 0


def test_a_sync_reads_what_differs_and_no_more(model: LocalModel) -> None:
    with model.session() as session:
        assert session.sync_ids(IDS[:300]) == Synced(0, 300)
        assert session.sync_ids([*IDS[:200], 7, 8]) == Synced(200, 2)
        assert session.sync_ids([*IDS[:200], 7, 8]) == Synced(202, 0)
        assert session.sync_ids(IDS[:50]) == Synced(49, 1)  # the last is read again for its logits
        np.testing.assert_allclose(session.logits, _fresh(model, IDS[:50], Full()), atol=1e-4)


def test_a_sync_of_what_a_policy_dropped_reads_it_again(model: LocalModel) -> None:
    policy = StreamingLLM(4, 60)
    with model.session(policy) as session:
        session.step(IDS)
        assert session.sync_ids(IDS[:200]) == Synced(0, 200)
        np.testing.assert_allclose(session.logits, _fresh(model, IDS[:200], policy), atol=1e-4)


def test_sync_text_takes_special_tokens_for_text(model: LocalModel) -> None:
    with model.session() as session:
        session.sync_text("the rain")
        assert model.counter.tokenizer.decode(list(session.ids)) == "the rain"


def test_messages_are_spans_and_rounds_of_tools_share_an_id(model: LocalModel) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be user friendly."},
        {"role": "user", "content": "user: ask"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "42"},
        {"role": "user", "content": "thanks"},
    ]
    ids, spans = model.prompt_spans(messages, ("system",))
    texts = [model.counter.tokenizer.decode(list(ids[s.start : s.end]), skip_special_tokens=False) for s in spans]
    assert [text.split("\n")[0] for text in texts] == [f"<|im_start|>{m['role']}" for m in messages]
    assert "".join(texts) == model.counter.tokenizer.decode(list(ids), skip_special_tokens=False)
    assert [span.pinned for span in spans] == [True, False, False, False, False]
    assert spans[2].id == spans[3].id != spans[4].id


def test_scoring_leaves_the_text_as_it_is(model: LocalModel) -> None:
    with model.session() as session:
        session.step(IDS[:50])
        found = session.score(IDS[50:60])
        assert len(session) == 50
    np.testing.assert_allclose(found, model.score(IDS[:50], IDS[50:60]), atol=1e-4)


def test_embeddings_of_tokens_are_read_as_the_tokens(model: LocalModel) -> None:
    table = model.model.get_input_embeddings().weight.detach()
    with model.session() as session:
        session.step(IDS[:20])
        found = session.step_embeddings(table[IDS[20:30]].numpy())
        np.testing.assert_allclose(found, _fresh(model, IDS[:30], Full()), atol=1e-4)
        with pytest.raises(PromptError, match="not kept"):
            session.crop(25)
        session.crop(20)
        np.testing.assert_allclose(session.logits, _fresh(model, IDS[:20], Full()), atol=1e-4)


def test_what_memory_does_not_hold_is_refused_before_it_is_computed(model: LocalModel) -> None:
    small = LocalModel(tiny_llama(), model.counter, max_kv_bytes=100_000)
    with small.session() as session:
        session.step(IDS[:100])
        with pytest.raises(MemoryInsufficient, match="400 tokens need") as refused:
            session.step(IDS[100:])
        assert refused.value.allowed_bytes == 100_000 < refused.value.needed_bytes
        assert len(session) == 100
    with small.session(StreamingLLM(4, 20)) as session:
        for start in range(0, 400, 10):
            session.step(IDS[start : start + 10])
        assert len(session) == 400


def test_a_policy_that_bounds_what_is_seen_lifts_the_window(model: LocalModel) -> None:
    narrow = tiny_model(window_tokens=64)
    with narrow.session() as session, pytest.raises(PromptError, match="the window holds 64"):
        session.step(IDS[:65])
    with narrow.session(StreamingLLM(4, 40)) as session:
        session.step(IDS)
    with narrow.session(MessageLedger(30, slack_tokens=20)) as session:
        for start in range(0, 400, 20):
            session.context.spans = tuple(Span(at, at + 20, id=str(at)) for at in range(0, start + 20, 20))
            session.step(IDS[start : start + 20])
        assert session.context.tracks[0].tokens <= 50
    with narrow.session(InfLLM(blocks=2, block_tokens=8, representatives=2, sinks=4, recent=40)) as session:
        session.step(IDS)
    endless = LocalModel(narrow.model, narrow.counter, policy=StreamingLLM(4, 40))
    assert endless.generate("word " * 60).completion_tokens
    del model


def test_a_dialogue_reads_each_turn_once(model: LocalModel) -> None:
    messages = [{"role": "user", "content": "Where is the rain in the lane?"}]
    with model.session() as session:
        session.sync_prompt(messages)
        reply = session.generate(Sampling(max_tokens=8))
        assert reply.text == model.generate(messages, Sampling(max_tokens=8)).text
        before = len(session)
        synced = session.sync_ids([*session.ids, *IDS[:5]])
        assert synced == Synced(before, 5)


def test_an_answer_leaves_a_branch_as_it_was(model: LocalModel) -> None:
    with model.session() as session:
        session.step(IDS[:40])
        with session.fork() as one, session.fork() as two:
            assert one.generate(Sampling(max_tokens=6)) == two.generate(Sampling(max_tokens=6))
        assert session.ids == tuple(IDS[:40])


@pytest.mark.parametrize(("words", "kept"), [(5, Full()), (100, StreamingLLM)])
def test_auto_picks_by_length_and_says_so(words: int, kept: Any, caplog: pytest.LogCaptureFixture) -> None:
    chooser = tiny_model(window_tokens=256, policy="auto")
    with caplog.at_level("INFO", logger="ctxkit"):
        assert chooser.generate("word " * words, Sampling(max_tokens=4)).completion_tokens
    assert ("full attention:" if kept == Full() else "StreamingLLM: ") in caplog.text


@pytest.mark.parametrize("policy", [H2O(64, 32), SirLLM(4, 30, 30, slack_tokens=16)], ids=repr)
def test_a_policy_that_drops_is_not_refused_memory_it_will_not_take(model: LocalModel, policy: Policy) -> None:
    small = LocalModel(tiny_llama(), model.counter, max_kv_bytes=120_000, prefill_tokens=32)
    with small.session(policy) as session:
        session.step(IDS)
        assert small.engine.pool.allocated_bytes <= 120_000
    with small.session() as session, pytest.raises(MemoryInsufficient):
        session.step(IDS)


def test_a_step_reads_what_it_sees(model: LocalModel) -> None:
    with model.session(StreamingLLM(4, 60)) as session:
        session.step(IDS[:200])
        before = session.bytes_touched
        session.step(IDS[200:201])
        a_token = 2 * 2 * (16 + 16) * 4  # layers, KV heads, dimensions of key and value, bytes
        assert session.bytes_touched - before == 64 * a_token


def test_nothing_read_has_no_logits_and_wrong_places_are_named(model: LocalModel) -> None:
    with model.session() as session:
        with pytest.raises(PromptError, match="nothing was read"):
            _ = session.logits
        session.step(IDS[:5])
        with pytest.raises(ValueError, match="from 0 to the text's 5, got 6"):
            session.crop(6)
        session.crop(0)
        assert len(session) == 0
        with pytest.raises(PromptError, match="no tokens"):
            session.step([])
