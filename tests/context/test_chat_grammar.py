"""The grammars of the two providers: each rule refuses what breaks it, and names the message."""

from __future__ import annotations

from typing import Any

import pytest

from ctxkit.context.chat import anthropic_problems, openai_problems, starts_with_user

USER = {"role": "user", "content": "why?"}
SAYS = {"role": "assistant", "content": "because"}


def call(*ids: Any, arguments: Any = "{}") -> dict[str, Any]:
    made = [{"id": one, "type": "function", "function": {"name": "f", "arguments": arguments}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(call_id: Any, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "developer", "content": "x"}, USER, SAYS, USER],
        [USER, call("a", "b"), result("b"), result("a")],
        [USER, call("a"), result("a"), call("a"), result("a", "")],
        [USER, {"role": "assistant", "tool_calls": [{"id": "h", "type": "mcp"}]}, USER],
        [USER, {"role": "assistant", "content": None, "refusal": "no"}, USER],
    ],
)
def test_openai_takes_valid_messages(messages):
    assert openai_problems(messages) == ()


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "no messages"),
        ([{"role": "bot", "content": "x"}, USER], "message 0: unknown role 'bot'"),
        ([USER, call("a"), USER], "message 2: call 'a' is not answered before it"),
        ([USER, call("a")], "message 2: call 'a' is not answered before it"),
        ([result("a")], "message 0: tool message answers 'a', which is no open call directly before it"),
        (
            [USER, call("a"), result("a"), result("a")],
            "message 3: tool message answers 'a', which is no open call directly before it",
        ),
        ([USER, call("a"), {"role": "tool", "content": "x"}], "message 2: tool message without `tool_call_id`"),
        ([{"role": "user", "content": None}], "message 0: no content"),
        ([{"role": "user", "content": []}], "message 0: content is an empty list"),
        ([{"role": "user", "content": 3}], "message 0: content is a int"),
        ([USER, {"role": "assistant", "content": None}, USER], "message 1: no content"),
        ([USER, {**SAYS, "tool_calls": []}, USER], "message 1: `tool_calls` is an empty list"),
        ([USER, call("a", "a"), result("a")], "message 1: two calls have the id 'a'"),
        ([USER, call(None), result("a")], "message 1: a call without id"),
        ([USER, call("a", arguments={}), result("a")], "message 1: arguments of call 'a' are no str"),
        ([USER, SAYS], "message 1: the prompt ends with role 'assistant', not with user or tool"),
    ],
)
def test_openai_refuses_what_breaks_a_rule(messages, problem):
    assert problem in openai_problems(messages)


def test_a_prefill_is_asked_for():
    assert openai_problems([USER, SAYS], prefill=True) == ()


def use(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": one, "name": "f", "input": {}} for one in ids]}


def answer(*ids: str, text: str = "", content: Any = "r") -> dict[str, Any]:
    blocks = [{"type": "tool_result", "tool_use_id": one, "content": content} for one in ids]
    return {"role": "user", "content": blocks + ([{"type": "text", "text": text}] if text else [])}


THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [USER, SAYS],
        [USER, use("a", "b"), answer("b", "a", text="go on")],
        [USER, {"role": "assistant", "content": [THINKING, *use("a")["content"]]}, answer("a")],
        [USER, {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]}, USER],
    ],
)
def test_anthropic_takes_valid_messages(messages):
    assert anthropic_problems(messages) == ()


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "no messages"),
        ([SAYS, USER], "message 0: the first message must be of the user, its role is 'assistant'"),
        ([{"role": "tool", "content": "x"}], "message 0: role 'tool' is neither user nor assistant"),
        ([{**USER, "name": "x"}], "message 0: keys are content, name, role, not role and content"),
        ([USER, use("a"), USER], "message 2: tool_use 'a' is not answered in it"),
        ([USER, use("a"), SAYS], "message 2: call 'a' is not answered before it"),
        ([USER, use("a")], "message 2: call 'a' is not answered before it"),
        ([USER, SAYS, answer("a")], "message 2: a tool_result answers 'a', no open tool_use directly before it"),
        (
            [USER, use("a"), {"role": "user", "content": [{"type": "text", "text": "x"}, *answer("a")["content"]]}],
            "message 2: the tool_result of 'a' stands behind other content",
        ),
        ([USER, use("a", "a"), answer("a")], "message 1: a second tool_use has the id 'a'"),
        ([USER, use("a"), answer("a"), use("a"), answer("a")], "message 3: a second tool_use has the id 'a'"),
        ([{"role": "user", "content": ""}], "message 0: an empty text block"),
        ([{"role": "user", "content": []}], "message 0: no content"),
        ([USER, use("a"), answer("a", content=[{"type": "text", "text": " "}])], "message 2: an empty text block"),
        (
            [USER, {"role": "assistant", "content": "so \n"}],
            "message 1: the assistant text that ends the prompt ends in white space",
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "text", "text": "x"}, THINKING]}],
            "message 1: there is thinking, and the first block is a 'text'",
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]}],
            "message 1: a thinking block without signature",
        ),
        ([{"role": "user", "content": use("a")["content"]}], "message 0: a tool_use that is not the assistant's"),
        ([USER, {"role": "assistant", "content": answer("a")["content"]}], "a tool_result that is not in a user"),
    ],
)
def test_anthropic_refuses_what_breaks_a_rule(messages, problem):
    assert any(problem in line for line in anthropic_problems(messages))


def test_the_first_message_after_the_system_prompt_is_the_users_or_not():
    system = {"role": "system", "content": "x"}
    assert starts_with_user([system, USER])
    assert not starts_with_user([system, SAYS, USER])
    assert not starts_with_user([system])
