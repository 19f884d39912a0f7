"""The answers of POST /v1/chat/completions: one body, or chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxkit.protocols import Reply, TokenLogprob


def usage_of(replies: Sequence[Reply]) -> dict[str, Any]:
    """What the model saw and said: the prompt once, all answers."""
    prompt = max((reply.prompt_tokens for reply in replies), default=0)
    completion = sum(reply.completion_tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class ChatBody:
    """One answer in the making. model: as the client named it."""

    def __init__(self, model: str, x_ctxkit: Mapping[str, Any]) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model
        self.x_ctxkit = dict(x_ctxkit)

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        choices = [
            {
                "index": at,
                "message": _message(reply),
                "logprobs": _logprobs(reply.logprobs),
                "finish_reason": reply.finish_reason,
            }
            for at, reply in enumerate(replies)
        ]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage_of(replies),
            "x_ctxkit": self.x_ctxkit,
        }

    def begins(self, at: int) -> dict[str, Any]:
        return self._chunk(at, {"role": "assistant", "content": ""})

    def piece(self, at: int, text: str) -> dict[str, Any]:
        return self._chunk(at, {"content": text})

    def ends(self, at: int, reply: Reply) -> Iterator[dict[str, Any]]:
        """What is known only at an answer's end: its thinking, calls, log-probabilities, and why it ended."""
        if reply.reasoning:
            yield self._chunk(at, {"reasoning_content": reply.reasoning})
        for number, call in enumerate(reply.tool_calls):
            named, arguments = _call_in_two(call, number)
            yield self._chunk(at, {"tool_calls": [named]})
            yield self._chunk(at, {"tool_calls": [arguments]})
        last = self._chunk(at, {}, reply.finish_reason)
        last["choices"][0]["logprobs"] = _logprobs(reply.logprobs)
        yield last

    def usage(self, replies: Sequence[Reply]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(replies)}

    def first(self) -> dict[str, Any]:
        """The report comes in a chunk without choices, before the answer."""
        return {**self._head("chat.completion.chunk"), "choices": [], "x_ctxkit": self.x_ctxkit}

    def _chunk(self, at: int, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": at, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _message(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [call_of(call) for call in reply.tool_calls]
        message["content"] = reply.text or None
    return message


def call_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call as OpenAI writes it: its arguments are text, and it has an id."""
    function = call.get("function") or {}
    arguments = function.get("arguments", "{}")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named = {"name": function.get("name", ""), "arguments": text}
    return {"id": call.get("id") or f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": named}


def _call_in_two(call: Mapping[str, Any], number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """As a stream has it: first the name, then the arguments."""
    whole = call_of(call)
    function = whole["function"]
    first = {**whole, "index": number, "function": {"name": function["name"], "arguments": ""}}
    return first, {"index": number, "function": {"arguments": function["arguments"]}}


def _logprobs(found: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not found:
        return None
    return {"content": [{**_logprob(one), "top_logprobs": [_logprob(top) for top in one.top]} for one in found]}


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode())}
