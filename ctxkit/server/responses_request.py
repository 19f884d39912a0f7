"""ResponsesRequest: the body of POST /v1/responses, and the chat request that it is in other words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ctxkit.server.chat_request import ChatRequest, ContextOptions
from ctxkit.server.labels import FIELD
from ctxkit.server.problems import Problem, unsupported

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "background": (None, False),
    "conversation": (None,),
    "prompt": (None,),
    "truncation": (None, "disabled", "auto"),
    "max_tool_calls": (None,),
    "context_management": (None, []),
}
_CONTENT = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


class ResponsesRequest(BaseModel):
    """As OpenAI writes it, and `ctxkit`. Only function tools."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool = False
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    text: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    ctxkit: ContextOptions = ContextOptions()

    def checked(self) -> ResponsesRequest:
        """Raises Problem for what is not done here."""
        for name, neutral in _NEUTRAL.items():
            if (self.model_extra or {}).get(name) not in neutral:
                raise unsupported(name, f"`{name}` is not supported here; leave it out")
        if self.previous_response_id is not None and self.ctxkit.session is not None:
            raise unsupported("previous_response_id", "go on from a response or with a session, not with both")
        return self

    def messages(self, before: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """The input as chat messages, behind the items before it, without the instructions. Raises Problem for items
        that are none.
        """
        given = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        if not given:
            raise Problem(400, "`input` is empty; give a text or items", code="invalid_value", param="input")
        return list(_joined_calls(chain(_messages(before), _messages(given))))

    def as_chat(self, before: Sequence[Mapping[str, Any]] = ()) -> ChatRequest:
        """The same as a chat request. before: the items of the conversation that it goes on from."""
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, *self.messages(before)],
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "response_format": _format(self.text),
            "tools": [_tool(tool, at) for at, tool in enumerate(self.tools)] if self.tools else None,
            "tool_choice": _choice(self.tool_choice),
            "ctxkit": self.ctxkit,
        }
        return ChatRequest(**fields)


def _messages(items: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for at, item in enumerate(items):
        if item.get("type") != "reasoning":  # what a model thought is not sent back to it
            label = {FIELD: item[FIELD]} if item.get(FIELD) is not None else {}
            yield {**_message(item, at), **label}


def _message(item: Mapping[str, Any], at: int) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "message":
        return {"role": item.get("role", "user"), "content": _content(item.get("content"), at)}
    if kind == "function_call":
        function = {"name": item.get("name", ""), "arguments": item.get("arguments", "{}")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        output = item.get("output")
        text = output if isinstance(output, str) else _content(output, at)
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": text}
    raise unsupported(f"input.{at}.type", f"items of the type {kind!r} are not supported here")


def _joined_calls(messages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Calls that stand side by side, and what was said before them, are one message where they have one label."""
    held: dict[str, Any] | None = None
    for message in messages:
        if held is not None and message.get("tool_calls") and held.get(FIELD) == message.get(FIELD):
            held = {**held, "tool_calls": [*held.get("tool_calls", ()), *message["tool_calls"]]}
            continue
        if held is not None:
            yield held
        held = message if message["role"] == "assistant" else None
        if held is None:
            yield message
    if held is not None:
        yield held


def _content(content: Any, at: int) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Problem(400, f"`input.{at}.content` is no text and no list", code="invalid_value", param=f"input.{at}")
    blocks = [_block(block, at) for block in content]
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    return "".join(texts) if len(texts) == len(blocks) else blocks


def _block(block: Any, at: int) -> dict[str, Any]:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind in _CONTENT:
        return {"type": "text", "text": str(block.get(_CONTENT[kind]) or "")}
    if kind == "input_image" and block.get("image_url"):
        return {"type": "image_url", "image_url": {"url": block["image_url"], "detail": block.get("detail") or "auto"}}
    raise unsupported(f"input.{at}.content", f"content of the type {kind!r} is not supported here")


def _format(text: Mapping[str, Any] | None) -> dict[str, Any] | None:
    form = (text or {}).get("format")
    if not form or form.get("type") == "text":
        return None
    if form.get("type") == "json_schema":
        named = {key: form[key] for key in ("name", "schema", "strict") if key in form}
        return {"type": "json_schema", "json_schema": named}
    return dict(form)


def _tool(tool: Mapping[str, Any], at: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise unsupported(f"tools.{at}.type", f"tools of the type {tool.get('type')!r} are not supported here")
    function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _choice(choice: str | Mapping[str, Any] | None) -> Any:
    if isinstance(choice, Mapping) and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice if choice is None or isinstance(choice, str) else json.loads(json.dumps(choice))
