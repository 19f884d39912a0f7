"""Properties of chat histories: broken ones are made whole, whole ones are left alone, both forms say the same."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context.chat import (
    anthropic_problems,
    conversation,
    from_anthropic,
    openai_problems,
    starts_with_user,
    to_anthropic,
)
from ctxkit.context.compose import compose
from ctxkit.context.group import grouped
from ctxkit.context.part import Part

Message = dict[str, Any]

IDS = st.sampled_from(["a", "b", "c"])
TEXT = st.text(alphabet="ab 天\n", max_size=8)
WORDS = TEXT.filter(str.strip)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
HOSTED = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
BLOCKS = st.lists(st.one_of(TEXT.map(lambda words: {"type": "text", "text": words}), st.just(IMAGE)), max_size=3)
SAID_BLOCKS = st.lists(st.sampled_from([THINKING, HOSTED, {"type": "text", "text": "so"}]), max_size=3)
CONTENT = st.one_of(TEXT, st.none(), BLOCKS)
ARGUMENTS = st.sampled_from(["{}", '{"a": 1}', '{"a', "", None, {"a": 1}])


@st.composite
def any_call(draw: st.DrawFn) -> dict[str, Any]:
    call_id = draw(st.one_of(IDS, IDS, IDS, st.sampled_from([None, ""])))
    kind = draw(st.sampled_from(["function", "function", "function", "custom", "mcp"]))
    body = {
        "function": {"name": "look", "arguments": draw(ARGUMENTS)},
        "custom": {"name": "sql", "input": "1"},
        "mcp": {"server": "x"},
    }
    return {"id": call_id, "type": kind, kind: body[kind]}


@st.composite
def any_assistant(draw: st.DrawFn) -> Message:
    message: Message = {"role": "assistant", "content": draw(st.one_of(CONTENT, SAID_BLOCKS))}
    made = draw(st.one_of(st.none(), st.lists(any_call(), max_size=3)))
    if made is not None:
        message["tool_calls"] = made
    if draw(st.integers(0, 5)) == 0:
        message[draw(st.sampled_from(["reasoning_content", "reasoning_details", "refusal"]))] = "why"
    if draw(st.integers(0, 9)) == 0:
        message["function_call"] = {"name": "old", "arguments": "{}"}
    return message


ANY_RESULT = st.builds(
    lambda call_id, content: {"role": "tool", "tool_call_id": call_id, "content": content},
    st.one_of(IDS, IDS, st.none()),
    CONTENT,
)
ANY_MESSAGE = st.one_of(
    st.builds(lambda content: {"role": "user", "content": content}, CONTENT),
    any_assistant(),
    any_assistant(),
    ANY_RESULT,
    ANY_RESULT,
    st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(["system", "developer"]), TEXT),
    st.just({"role": "function", "name": "old", "content": "x"}),
)
HISTORIES = st.lists(ANY_MESSAGE, max_size=12)


def sent(parts: list[Part] | tuple[Part, ...]) -> list[dict[str, Any]]:
    return [message.to_dict() for message in compose(parts)]


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_any_history_becomes_a_prompt_that_is_taken(messages):
    before = copy.deepcopy(messages)
    read = conversation(messages)
    grouped(read.parts)
    problems = openai_problems(sent(read.parts))
    if messages and messages[-1]["role"] in ("user", "tool", "function"):
        assert problems == ()
    elif read.parts:
        assert all("the prompt ends with" in problem for problem in problems)
    assert messages == before, "the caller's messages are not touched"
    assert all(str(repair).startswith(f"message {repair.index}: ") for repair in read.repairs)
    assert all("\n" not in str(repair) for repair in read.repairs)


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.data())
def test_any_choice_of_whole_groups_is_taken(messages, data):
    groups = grouped(conversation(messages).parts)
    kept = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    chosen = sorted(
        pair for group, keep in zip(groups, kept, strict=True) if keep for pair in enumerate_positions(group)
    )
    prompt = sent([groups[at].parts[place] for _, at, place in chosen])
    assert all("the prompt ends with" in one or one == "no messages" for one in openai_problems(prompt))


def enumerate_positions(group: Any) -> list[tuple[int, int, int]]:
    return [(position, group.index, place) for place, position in enumerate(group.positions)]


@settings(max_examples=120, deadline=None)
@given(HISTORIES)
def test_what_was_repaired_needs_no_second_repair(messages):
    once = sent(conversation(messages).parts)
    again = conversation(once)
    assert all("kept as they are" in str(repair) for repair in again.repairs)
    assert sent(again.parts) == once


@settings(max_examples=120, deadline=None)
@given(HISTORIES)
def test_pinned_parts_drag_nothing_along(messages):
    for group in grouped(conversation(messages).parts):
        assert len(group.parts) == 1 or not group.pinned


@settings(max_examples=120, deadline=None)
@given(HISTORIES)
def test_signed_messages_are_sent_with_all_their_content_and_calls_or_not_at_all(messages):
    for part in conversation(messages).parts:
        given_as = messages[int(part.id[1:].partition(".")[0])]
        if part.verbatim and part.message is not None:
            assert part.message.get("content") == (given_as["content"] or part.message.get("content"))
            if given_as.get("tool_calls"):
                sent_ids = [call["id"] for call in part.message["tool_calls"]]
                assert sent_ids == [call["id"] for call in given_as["tool_calls"]]


@st.composite
def valid_round(draw: st.DrawFn) -> list[Message]:
    ids = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
    arguments = draw(st.sampled_from(["{}", '{"a": 1}', '{"a": "天"}']))
    made = [{"id": one, "type": "function", "function": {"name": "look", "arguments": arguments}} for one in ids]
    results = [
        {"role": "tool", "tool_call_id": one, "content": draw(st.one_of(TEXT, st.just([IMAGE])))}
        for one in draw(st.permutations(ids))
    ]
    return [{"role": "assistant", "content": draw(st.one_of(st.none(), WORDS)), "tool_calls": made}, *results]


@st.composite
def valid_history(draw: st.DrawFn) -> list[Message]:
    messages = [{"role": "system", "content": draw(WORDS)}] if draw(st.booleans()) else []
    messages.append({"role": "user", "content": draw(WORDS)})
    turns = st.one_of(
        valid_round(),
        WORDS.map(lambda words: [{"role": "assistant", "content": words}]),
        st.one_of(TEXT, st.just([IMAGE])).map(lambda content: [{"role": "user", "content": content}]),
        st.just([{"role": "system", "content": "now in French"}]),
        st.just([{"role": "assistant", "content": [THINKING, {"type": "text", "text": "so"}]}]),
    )
    for turn in draw(st.lists(turns, max_size=8)):
        messages += turn
    return [*messages, {"role": "user", "content": draw(WORDS)}] if draw(st.booleans()) else messages


@settings(max_examples=150, deadline=None)
@given(valid_history())
def test_a_valid_history_is_sent_as_it_is(messages):
    read = conversation(messages)
    assert read.repairs == ()
    assert sent(read.parts) == messages
    assert all(part.message is message for part, message in zip(read.parts, messages, strict=True))


@settings(max_examples=150, deadline=None)
@given(valid_history())
def test_a_valid_history_is_valid_for_anthropic_and_comes_back_from_there(messages):
    assert starts_with_user(messages)
    system, there = to_anthropic(messages)
    assert anthropic_problems(there) == ()
    back = from_anthropic(there, system)
    assert conversation(back).repairs == ()
    assert to_anthropic(back) == (system, there)


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_any_history_that_starts_with_the_user_is_valid_for_anthropic_once_repaired(messages):
    repaired = sent(conversation(messages).parts)
    if openai_problems(repaired, prefill=True) == () and starts_with_user(repaired):
        assert anthropic_problems(to_anthropic(repaired)[1]) == ()
