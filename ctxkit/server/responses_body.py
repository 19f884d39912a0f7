"""The answers of POST /v1/responses: one body, or the events that it grows by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxkit.protocols import Reply
from ctxkit.server.call_deltas import call_of
from ctxkit.server.labels import with_calls
from ctxkit.server.responses_items import new_id
from ctxkit.server.responses_request import ResponsesRequest


class ResponsesBody:
    """One answer in the making: `begins`, a `piece` for each piece of text, `ends`. Events are numbered.

    stored: whether the answer is kept, to be read again and to go on from.
    """

    def __init__(
        self, model: str, request: ResponsesRequest, x_ctxkit: Mapping[str, Any], *, stored: bool = False
    ) -> None:
        self.id = new_id("resp")
        self.created = int(time.time())
        self.model = model
        self.request = request
        self.x_ctxkit = dict(x_ctxkit)
        self.stored = stored
        self._message = new_id("msg")
        self._number = 0
        self._said = False

    def whole(self, reply: Reply) -> dict[str, Any]:
        """The answer when it is whole."""
        output = self._output(reply)
        self._flag(output)
        return self._response(_status(reply), output, reply)

    def begins(self) -> Iterator[dict[str, Any]]:
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress", []))

    def piece(self, text: str) -> Iterator[dict[str, Any]]:
        if not text:
            return
        if not self._said:
            self._said = True
            yield from self._opens_message()
            yield self._event("response.content_part.added", **self._part(), part=_text_part(""))
        yield self._event("response.output_text.delta", **self._part(), delta=text, logprobs=[])

    def ends(self, whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events behind the pieces. whole: what `whole` made, once, so that its ids are the same everywhere."""
        output = whole["output"]
        if self._said:
            text = next(part for part in output[0]["content"] if part["type"] == "output_text")
            yield self._event("response.output_text.done", **self._part(), text=text["text"], logprobs=[])
            yield self._event("response.content_part.done", **self._part(), part=text)
        refusal = next((part["refusal"] for part in _content(output) if part["type"] == "refusal"), None)
        if refusal is not None:
            yield from self._refuses(refusal)
        if self._said or refusal is not None:
            yield self._event("response.output_item.done", output_index=0, item=output[0])
        for at, item in enumerate(output):
            if item["type"] == "function_call":
                yield from self._call(at, item)
        yield self._event(f"response.{whole['status']}", response=dict(whole))

    def _output(self, reply: Reply) -> list[dict[str, Any]]:
        """The items: a message where there is text (or nothing else), then the calls."""
        items: list[dict[str, Any]] = []
        if reply.text or not reply.tool_calls or self._said:
            message = {"id": self._message, "type": "message", "role": "assistant", "status": _status(reply)}
            said = [_text_part(reply.text)] if reply.text or self._said or not reply.refusal else []
            withheld = [_refusal_part(reply.refusal)] if reply.refusal else []
            items.append({**message, "content": [*said, *withheld]})
        for call in map(call_of, reply.tool_calls):
            named = {"call_id": call["id"], **call["function"]}
            items.append({"id": new_id("fc"), "type": "function_call", "status": "completed", **named})
        return items

    def _opens_message(self) -> Iterator[dict[str, Any]]:
        item = {"id": self._message, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)

    def _refuses(self, refusal: str) -> Iterator[dict[str, Any]]:
        """A part of the message, behind its text where there is one."""
        if not self._said:
            yield from self._opens_message()
        where = {**self._part(), "content_index": int(self._said)}
        yield self._event("response.content_part.added", **where, part=_refusal_part(""))
        yield self._event("response.refusal.delta", **where, delta=refusal)
        yield self._event("response.refusal.done", **where, refusal=refusal)
        yield self._event("response.content_part.done", **where, part=_refusal_part(refusal))

    def _flag(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Names the tool calls in the report that are to be named there."""
        self.x_ctxkit = with_calls(
            self.x_ctxkit, [item["call_id"] for item in output if item["type"] == "function_call"]
        )

    def _call(self, at: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        where = {"output_index": at, "item_id": item["id"]}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=at, item=begun)
        yield self._event("response.function_call_arguments.delta", **where, delta=item["arguments"])
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield self._event("response.function_call_arguments.done", **where, **done)
        yield self._event("response.output_item.done", output_index=at, item=dict(item))

    def _part(self) -> dict[str, Any]:
        return {"item_id": self._message, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def _response(self, status: str, output: list[dict[str, Any]], reply: Reply | None = None) -> dict[str, Any]:
        asked = self.request
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": _why(reply)} if status == "incomplete" and reply is not None else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "store": self.stored,
            "temperature": asked.temperature,
            "text": asked.text or {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": asked.top_p,
            "usage": None if reply is None else _usage(reply),
            "x_ctxkit": self.x_ctxkit,
        }


def _status(reply: Reply) -> str:
    return "incomplete" if reply.finish_reason in ("length", "content_filter") else "completed"


def _why(reply: Reply) -> str:
    return "max_output_tokens" if reply.finish_reason == "length" else "content_filter"


def _content(output: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The parts of the message, which comes first where there is one."""
    return output[0]["content"] if output and output[0]["type"] == "message" else ()


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _refusal_part(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": reply.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
