"""OpenAI's form to Anthropic's and back."""

from __future__ import annotations

from typing import Any

import pytest

from ctxkit.context.chat import anthropic_problems, conversation, from_anthropic, openai_problems, to_anthropic
from ctxkit.errors import PartError

EPHEMERAL = {"type": "ephemeral"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"}}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def use(call_id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "look", "input": given}


def result(call_id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


AGENT_RUN = [
    {"role": "user", "content": [text("Look at this."), {**PNG, "cache_control": EPHEMERAL}]},
    {"role": "assistant", "content": [THINKING, text("Both."), use("a", at=1), use("b", at="天")]},
    {
        "role": "user",
        "content": [
            result("a", "no such place", is_error=True),
            result("b", [text("here"), PNG], cache_control=EPHEMERAL),
            text("Go on."),
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
            text("Found.", citations=[{"type": "x"}]),
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBER"},
                "title": "a.pdf",
                "citations": {"enabled": True},
            },
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            text("And this?"),
        ],
    },
    {"role": "assistant", "content": [text("First"), use("c"), text("then"), use("d")]},
    {"role": "user", "content": [result("c", "1"), result("d", "2")]},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Thanks."},
]


@pytest.mark.parametrize("system", ["Be brief.", [text("Be brief.", cache_control=EPHEMERAL)]])
def test_an_agent_run_comes_back_equal_and_is_valid_in_both_forms(system):
    told = from_anthropic(AGENT_RUN, system)
    assert openai_problems(told) == ()
    assert anthropic_problems(AGENT_RUN) == ()
    assert to_anthropic(told) == (system, AGENT_RUN)


def test_an_agent_run_needs_no_repair():
    read = conversation(from_anthropic(AGENT_RUN))
    assert read.repairs == ()
    assert [part.verbatim for part in read.parts if part.role == "assistant"] == [True, True, False, False]


def test_openai_form_comes_back_equal():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBER"}}
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, file, text("?")]},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
        {"role": "user", "content": "and?"},
    ]
    system, sent = to_anthropic(messages)
    assert anthropic_problems(sent) == ()
    assert from_anthropic(sent, system) == messages


def test_parallel_results_and_the_next_user_text_share_a_message():
    calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in "ab"]
    _, sent = to_anthropic(
        [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "user", "content": "more"},
        ]
    )
    assert [block["type"] for block in sent[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert len(sent) == 3


def test_a_call_id_used_again_gets_a_number():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    once = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": ""},
    ]
    _, sent = to_anthropic([{"role": "user", "content": "go"}, *once, *once])
    assert anthropic_problems(sent) == ()
    assert [sent[3]["content"][0]["id"], sent[4]["content"][0]["tool_use_id"]] == ["a-2", "a-2"]


@pytest.mark.parametrize("arguments", ['{"at": ', "[1, 2]", "NaN", "天"])
def test_arguments_that_are_no_object_come_back_as_they_were(arguments):
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    _, sent = to_anthropic(messages)
    assert anthropic_problems(sent) == ()
    assert from_anthropic(sent) == messages


def test_what_anthropic_has_no_place_for_is_said_or_left_out():
    system, sent = to_anthropic(
        [
            {"role": "user", "content": "", "name": "Ann"},
            {"role": "assistant", "content": " "},
            {"role": "assistant", "content": None, "reasoning_content": "hm"},
            {"role": "system", "content": "In French."},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]},
            {"role": "assistant", "content": "So: \n"},
        ]
    )
    assert system == "" and anthropic_problems(sent) == ()
    assert [block["text"] for block in sent[0]["content"]] == ["(empty)", "[system message]\n", "In French."]
    assert sent[1]["content"] == [text("No.")]
    assert sent[2]["content"][0]["text"].startswith("[audio left out")
    assert sent[3]["content"] == "So:"


def test_thinking_beside_the_content_goes_first():
    message = {"role": "assistant", "content": "so", "thinking_blocks": [THINKING]}
    _, sent = to_anthropic([{"role": "user", "content": "x"}, {"role": "assistant", "content": "hm"}, message])
    assert sent[1]["content"] == [THINKING, text("hm"), text("so")]
    assert anthropic_problems(sent) == ()


def test_a_cache_mark_of_a_message_goes_to_its_last_block():
    _, sent = to_anthropic([{"role": "user", "content": "x", "cache_control": EPHEMERAL}])
    assert sent[0]["content"] == [text("x", cache_control=EPHEMERAL)]


def test_other_roles_are_refused_with_their_index():
    with pytest.raises(PartError, match="message 1: role 'function'"):
        to_anthropic([{"role": "user", "content": "x"}, {"role": "function", "content": "x"}])
    with pytest.raises(PartError, match="message 0: `role` must be user or assistant"):
        from_anthropic([{"role": "system", "content": "x"}])


def test_nothing_gives_nothing():
    assert to_anthropic([]) == ("", [])
    assert from_anthropic([]) == []
