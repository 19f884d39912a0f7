"""The answers of POST /v1/chat/completions: one body, or chunks."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctxkit.protocols import Reply, TokenLogprob
from ctxkit.server.answering import Piece
from ctxkit.server.call_deltas import CallDeltas, call_of
from ctxkit.server.labels import with_calls


def usage_of(replies: Sequence[Reply]) -> dict[str, Any]:
    """What the model saw and said: the prompt once, all answers. Cached is what none of the answers had read anew."""
    prompt = max((reply.prompt_tokens for reply in replies), default=0)
    completion = sum(reply.completion_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min((reply.cached_tokens for reply in replies), default=0)},
    }


@dataclass
class _Growing:
    """What was sent of one answer of a stream. logprobs: how many. thought: characters of the thinking."""

    calls: CallDeltas = field(default_factory=CallDeltas)
    logprobs: int = 0
    thought: int = 0


class ChatBody:
    """One answer in the making. model: as the client named it."""

    def __init__(self, model: str, x_ctxkit: Mapping[str, Any]) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model
        self.x_ctxkit = dict(x_ctxkit)
        self._answers: defaultdict[int, _Growing] = defaultdict(_Growing)

    def whole(self, replies: Sequence[Reply]) -> dict[str, Any]:
        messages = [_message(reply) for reply in replies]
        choices = [
            {
                "index": at,
                "message": messages[at],
                "logprobs": _logprobs(reply.logprobs),
                "finish_reason": reply.finish_reason,
            }
            for at, reply in enumerate(replies)
        ]
        calls = [call["id"] for message in messages for call in message.get("tool_calls", ())]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage_of(replies),
            "x_ctxkit": with_calls(self.x_ctxkit, calls),
        }

    def begins(self, at: int) -> dict[str, Any]:
        return self._chunk(at, {"role": "assistant", "content": ""})

    def piece(self, at: int, piece: Piece) -> Iterator[dict[str, Any]]:
        growing = self._answers[at]
        if piece.reasoning:
            growing.thought += len(piece.reasoning)
            yield self._chunk(at, {"reasoning_content": piece.reasoning})
        if piece.text or piece.logprobs:
            growing.logprobs += len(piece.logprobs)
            yield self._chunk(at, {"content": piece.text}, logprobs=piece.logprobs)
        for call in growing.calls.of(piece.tool_calls, whole=False):
            yield self._chunk(at, {"tool_calls": [call]})

    def ends(self, at: int, reply: Reply) -> Iterator[dict[str, Any]]:
        """What of an answer is known at its end only, and why it ended."""
        growing = self._answers[at]
        if thought := reply.reasoning[growing.thought :]:
            yield self._chunk(at, {"reasoning_content": thought})
        if reply.refusal:
            yield self._chunk(at, {"refusal": reply.refusal})
        for call in growing.calls.of(reply.tool_calls, whole=True):
            yield self._chunk(at, {"tool_calls": [call]})
        yield from self._flagged(growing.calls.ids)
        yield self._chunk(at, {}, reply.finish_reason, reply.logprobs[growing.logprobs :])

    def usage(self, replies: Sequence[Reply]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(replies)}

    def first(self) -> dict[str, Any]:
        """The report comes in a chunk without choices, before the answer."""
        return {**self._head("chat.completion.chunk"), "choices": [], "x_ctxkit": self.x_ctxkit}

    def _flagged(self, call_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The report once more, where these calls are to be named in it."""
        told = with_calls(self.x_ctxkit, call_ids)
        if told != self.x_ctxkit:
            self.x_ctxkit = told
            yield self.first()

    def _chunk(
        self,
        at: int,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        logprobs: Sequence[TokenLogprob] = (),
    ) -> dict[str, Any]:
        choice = {"index": at, "delta": dict(delta), "logprobs": _logprobs(logprobs), "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _message(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": reply.refusal or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [call_of(call) for call in reply.tool_calls]
    if reply.tool_calls or reply.refusal:
        message["content"] = reply.text or None
    return message


def _logprobs(found: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not found:
        return None
    return {"content": [{**_logprob(one), "top_logprobs": [_logprob(top) for top in one.top]} for one in found]}


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode())}
