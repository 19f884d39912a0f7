"""LangChain messages there and back, and LangChain's counters as ctxkit's."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from ctxkit.context.chat import conversation, openai_problems
from ctxkit.context.compose import compose
from ctxkit.errors import PartError
from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Segment
from ctxkit_connectors.langchain import LangChainCounter, OpenAIForm

PIXEL = base64.b64encode(b"png").decode()
CALL = {"id": "a", "name": "look", "args": {"q": "x"}, "type": "tool_call"}
INVALID = {"type": "invalid_tool_call", "id": "b", "name": "look", "args": "{", "error": "no JSON"}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REASONING = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "xyz"}
TOOL_USE = {"type": "tool_use", "id": "a", "name": "look", "input": {"q": "x"}}


def characters(messages: list[BaseMessage]) -> int:
    return sum(1 + len(message.text) for message in messages)


def rewritten(form: OpenAIForm, place: int, text: str, **fields: Any) -> BaseMessage:
    """The message at `place`, back from a part that a compressor rewrote."""
    part = conversation(form.dicts).parts[place].rewritten(text, **fields)
    return form.back(compose([part])[0])


@pytest.mark.parametrize(
    "message",
    [
        SystemMessage("rules", additional_kwargs={"__openai_role__": "developer"}),
        SystemMessage([{"type": "text", "text": "rules", "cache_control": {"type": "ephemeral"}}]),
        HumanMessage("hi", name="ann", id="1"),
        HumanMessage(["hi", {"type": "image", "base64": PIXEL, "mime_type": "image/png"}]),
        HumanMessage([{"type": "audio", "url": "https://example.org/a.mp3"}]),
        HumanMessage([]),
        ChatMessage(role="user", content="hi"),
        AIMessage("said", response_metadata={"model_name": "m"}),
        AIMessageChunk("said"),
        AIMessage([SIGNED, {"type": "text", "text": "said"}]),
        AIMessage([REASONING, {"type": "web_search_call", "id": "ws"}, {"type": "text", "text": "said"}]),
        AIMessage("said", additional_kwargs={"thought_signatures": ["s"], "refusal": None}),
    ],
    ids=lambda message: f"{message.type}-{str(message.content)[:20]}",
)
def test_what_is_sent_whole_is_the_same_object(message):
    form = OpenAIForm([HumanMessage("go"), message, HumanMessage("so?")])
    read = conversation(form.dicts)
    assert form.all_back(compose(read.parts))[1] is message or read.repairs
    assert openai_problems(form.dicts) == () or message.content == []


def test_a_round_is_in_openais_form():
    form = OpenAIForm([HumanMessage("go"), AIMessage("", tool_calls=[CALL]), ToolMessage("found", tool_call_id="a")])
    assert form.dicts == [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"q": "x"}'}}],
        },
        {"role": "tool", "content": "found", "tool_call_id": "a"},
    ]


@pytest.mark.parametrize(
    "block",
    [
        TOOL_USE,
        {"type": "tool_call", "id": "a", "name": "look", "args": {"q": "x"}},
        {"type": "function_call", "call_id": "a", "id": "fc", "name": "look", "arguments": '{"q": "x"}'},
    ],
    ids=lambda block: block["type"],
)
@pytest.mark.parametrize("calls", [[CALL], []], ids=["with tool_calls", "without"])
def test_blocks_that_repeat_a_call_follow_it(block, calls):
    message = AIMessage([{"type": "text", "text": "let me see"}, block], tool_calls=calls, id="1")
    form = OpenAIForm([HumanMessage("go"), message, ToolMessage("found", tool_call_id="a")])
    assert len(form.dicts[1]["tool_calls"]) == 1 and openai_problems(form.dicts) == ()
    assert form.all_back(compose(conversation(form.dicts).parts))[1] is message
    shorter = {**form.dicts[1]["tool_calls"][0], "function": {"name": "look", "arguments": '{"q":"-"}'}}
    reduced = rewritten(form, 1, "let me", tool_calls=(shorter,))
    assert isinstance(reduced, AIMessage) and reduced.id == "1"
    assert reduced.tool_calls == [{"id": "a", "name": "look", "args": {"q": "-"}, "type": "tool_call"}]
    text, call = reduced.content
    assert text == {"type": "text", "text": "let me"}
    assert call["type"] == block["type"] and {"q": "-"} in call.values() or '{"q":"-"}' in call.values()


def test_a_reduced_message_keeps_id_name_and_metadata():
    answer = ToolMessage("long " * 50, tool_call_id="a", id="7", name="look", status="error", artifact={"rows": 3})
    form = OpenAIForm([HumanMessage("go"), AIMessage("", tool_calls=[CALL]), answer])
    reduced = rewritten(form, 2, "long")
    assert isinstance(reduced, ToolMessage) and reduced.content == "long"
    kept = (reduced.id, reduced.name, reduced.status, reduced.artifact, reduced.tool_call_id)
    assert kept == ("7", "look", "error", {"rows": 3}, "a")
    assert answer.content == "long " * 50


def test_images_come_back_as_langchain_has_them():
    image = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    form = OpenAIForm([HumanMessage(["look at this, please", image])])
    assert form.dicts[0]["content"][1]["type"] == "image_url"
    assert rewritten(form, 0, "look").content == [{"type": "text", "text": "look"}, image]


@pytest.mark.parametrize("block", [SIGNED, REASONING, {"type": "web_search_call", "id": "ws"}], ids=lambda b: b["type"])
def test_what_a_provider_signed_or_ran_is_never_edited(block):
    form = OpenAIForm([HumanMessage("go"), AIMessage([block, {"type": "text", "text": "so"}])])
    assert conversation(form.dicts).parts[1].verbatim


def test_a_call_that_nobody_answered_is_taken_out_of_the_message():
    message = AIMessage("look", tool_calls=[CALL], invalid_tool_calls=[INVALID], additional_kwargs={"tool_calls": [{}]})
    form = OpenAIForm([HumanMessage("go"), message, ToolMessage("found", tool_call_id="a"), HumanMessage("so?")])
    sent = form.all_back(compose(conversation(form.dicts).parts))
    assert openai_problems(OpenAIForm(sent).dicts) == ()
    assert isinstance(sent[1], AIMessage) and sent[1].tool_calls == [CALL] and not sent[1].invalid_tool_calls
    assert "tool_calls" not in sent[1].additional_kwargs
    assert message.invalid_tool_calls, "the message of the caller is not touched"


def test_what_a_repair_wrote_is_a_new_message():
    form = OpenAIForm([HumanMessage("go"), ToolMessage("stray", tool_call_id="x", id="7"), HumanMessage("so?")])
    sent = form.all_back(compose(conversation(form.dicts).parts))
    assert isinstance(sent[1], HumanMessage) and "stray" in sent[1].text
    assert (sent[0], sent[2]) == (form.messages[0], form.messages[2])


def test_functions_of_old_become_tools():
    old = AIMessage("", additional_kwargs={"function_call": {"name": "look", "arguments": "{}"}})
    form = OpenAIForm([HumanMessage("go"), old, FunctionMessage("found", name="look")])
    sent = form.all_back(compose(conversation(form.dicts).parts))
    assert isinstance(sent[1], AIMessage) and sent[1].tool_calls[0]["name"] == "look"
    assert "function_call" not in sent[1].additional_kwargs
    assert isinstance(sent[2], ToolMessage) and sent[2].tool_call_id == sent[1].tool_calls[0]["id"]


def test_what_is_no_chat_message_is_refused():
    with pytest.raises(PartError, match="RemoveMessage is no chat message"):
        OpenAIForm([RemoveMessage(id="1")])


def test_the_counter_is_asked_about_the_very_messages():
    seen: list[list[BaseMessage]] = []

    def counter(messages: list[BaseMessage]) -> int:
        seen.append(messages)
        return characters(messages)

    form = OpenAIForm([HumanMessage("abc", id="1"), AIMessage("de", usage_metadata=None)])
    rendering = LangChainCounter(counter, form=form).render(compose(conversation(form.dicts).parts))
    assert any(len(asked) == 2 and all(a is b for a, b in zip(asked, form.messages, strict=True)) for asked in seen)
    assert rendering.tokens == 7
    assert rendering.by_owner == {TEMPLATE: 2, "m0": 3, "m1": 2}


def test_what_is_charged_adds_up_whatever_the_counter_says():
    messages = [PromptMessage("user", (Segment("abc", "a"), Segment("def", "b")), owner="a")]
    for counter in (characters, len, lambda given: 0, lambda given: 1000, "approximate"):
        rendering = LangChainCounter(counter).render(messages, tools=[{"type": "function", "function": {"name": "x"}}])
        assert sum(rendering.by_owner.values()) == rendering.tokens
        assert min(rendering.by_owner.values()) >= 0
        assert rendering.by_owner[TOOLS] == LangChainCounter(counter).count(
            '{"type": "function", "function": {"name": "x"}}'
        )


def test_a_counter_is_an_estimate_unless_the_caller_vouches_for_it():
    assert not LangChainCounter("approximate").exact
    assert LangChainCounter(characters, exact=True).exact
    assert LangChainCounter(characters).name == "langchain characters"
    assert LangChainCounter(characters).count("abc") == 3
