"""MessageLedger forgets whole messages, in order, and nothing that was pinned."""

import pytest
import torch

from ctxkit.errors import PolicyError
from ctxkit.models.local.policies import MessageLedger, Span
from tests.models.policies.evicting import pair, random_ids, stored

SYSTEM = Span(0, 10, pinned=True)
CONVERSATION = (SYSTEM, Span(10, 20), Span(20, 30), Span(30, 40), Span(40, 50))


def kept_after(policy, spans, tokens, *, moments=("turn",)):
    """Positions that stay of a text of so many tokens."""
    engine, context, _ = pair(policy)
    context.spans = tuple(spans)
    engine.forward(random_ids(tokens), context)
    for moment in moments:
        engine.settle(context, moment)
    kept = set(map(tuple, stored(context).values()))
    engine.close(context)
    assert len(kept) == 1
    return list(kept.pop())


def positions(*ranges):
    return [position for start, end in ranges for position in range(start, end)]


def test_the_oldest_message_leaves_first_and_whole():
    assert kept_after(MessageLedger(45, sinks=0), CONVERSATION, 50) == positions((0, 10), (20, 50))
    assert kept_after(MessageLedger(39, sinks=0), CONVERSATION, 50) == positions((0, 10), (30, 50))


def test_a_text_within_the_budget_is_kept_whole():
    assert kept_after(MessageLedger(50), CONVERSATION, 50) == positions((0, 50))


def test_sinks_stay_of_a_message_that_leaves():
    spans = [Span(0, 20), Span(20, 40)]
    assert kept_after(MessageLedger(30, sinks=4), spans, 40) == positions((0, 4), (20, 40))


def test_a_tool_call_leaves_together_with_its_result():
    call, result = Span(10, 20, id="call 1"), Span(30, 40, id="call 1")
    spans = [SYSTEM, call, Span(20, 30), result, Span(40, 50)]
    assert kept_after(MessageLedger(45, sinks=0), spans, 50) == positions((0, 10), (20, 30), (40, 50))


def test_a_tool_call_stays_while_its_result_is_the_last_message():
    spans = [SYSTEM, Span(10, 20, id="call 1"), Span(20, 30), Span(30, 40), Span(40, 50, id="call 1")]
    assert kept_after(MessageLedger(35, sinks=0), spans, 50) == positions((0, 20), (40, 50))


def test_a_group_with_a_pinned_message_is_pinned():
    spans = [SYSTEM, Span(10, 20, id="task"), Span(20, 30), Span(30, 40, pinned=True, id="task"), Span(40, 50)]
    assert kept_after(MessageLedger(40, sinks=0), spans, 50) == positions((0, 20), (30, 50))


def test_lower_priority_leaves_before_older():
    spans = [SYSTEM, Span(10, 20, priority=1), Span(20, 30, priority=1), Span(30, 40), Span(40, 50)]
    assert kept_after(MessageLedger(45, sinks=0), spans, 50) == positions((0, 30), (40, 50))
    assert kept_after(MessageLedger(35, sinks=0), spans, 50) == positions((0, 10), (20, 30), (40, 50))


def test_tokens_between_messages_leave_with_the_one_before_them():
    spans = [Span(2, 8, pinned=True), Span(10, 18), Span(20, 28), Span(30, 38)]
    assert kept_after(MessageLedger(30, sinks=0), spans, 40) == positions((0, 10), (20, 40))


def test_an_answer_stays_with_its_question_until_it_is_a_message():
    answered = (*CONVERSATION[:4], Span(40, 44))  # the answer is being made from 44 on
    assert kept_after(MessageLedger(25, sinks=0), answered, 50) == positions((0, 10), (40, 50))
    noted = (*answered, Span(44, 50))
    assert kept_after(MessageLedger(16, sinks=0), noted, 50) == positions((0, 10), (44, 50))


def test_messages_that_have_not_begun_do_not_count():
    spans = (*CONVERSATION, Span(50, 90))
    assert kept_after(MessageLedger(25, sinks=0), spans, 50) == positions((0, 10), (40, 50))


def test_within_the_slack_nothing_leaves_before_the_turn_ends():
    policy = MessageLedger(30, sinks=0, slack_tokens=20)
    assert kept_after(policy, CONVERSATION, 50, moments=()) == positions((0, 50))
    assert kept_after(policy, CONVERSATION, 50, moments=("prompt",)) == positions((0, 10), (30, 50))
    assert kept_after(MessageLedger(30, sinks=0, slack_tokens=19), CONVERSATION, 50, moments=()) == positions(
        (0, 10), (30, 50)
    )


def test_pins_beyond_the_budget_are_refused_with_their_numbers():
    spans = [Span(0, 40, pinned=True), Span(40, 50)]
    with pytest.raises(PolicyError, match=r"40 tokens, the last message 10 more, and 36 may be kept, with 100 of"):
        kept_after(MessageLedger(36, slack_tokens=100), spans, 50)


def test_a_last_message_beyond_budget_and_slack_is_refused():
    with pytest.raises(PolicyError, match="sinks take 4 tokens, the last message 46 more"):
        kept_after(MessageLedger(30, slack_tokens=19), [], 50)
    assert kept_after(MessageLedger(30, slack_tokens=20), [], 50) == positions((0, 50))


def test_after_a_refusal_the_text_is_whole():
    engine, context, _ = pair(MessageLedger(30, slack_tokens=0))
    with pytest.raises(PolicyError):
        engine.forward(random_ids(50), context)
    assert context.ids == random_ids(50)
    assert context.tracks[0].tokens == 50
    engine.close(context)
    assert engine.pool.used == 0


def test_what_stays_is_seen_without_holes():
    engine, context, dense = pair(MessageLedger(39, sinks=0))
    context.spans = CONVERSATION
    first, second = random_ids(50), random_ids(7, seed=1)
    engine.prefill(first, context)
    dense.feed(first)
    kept = stored(context)[0, 0]
    for layer in range(dense.layers):
        dense.keep(layer, torch.tensor(kept).expand(dense.kv_heads, -1))
    dense.turn_keys([place - position for place, position in enumerate(kept)])
    expected, _ = dense.feed(second, at=len(kept))
    assert kept == positions((0, 10), (30, 50))
    torch.testing.assert_close(engine.forward(second, context, keep=7), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"budget_tokens": 0}, {"sinks": -1}, {"slack_tokens": -1}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="budget_tokens"):
        MessageLedger(**wrong)
