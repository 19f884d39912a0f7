"""Between OpenAI's message dicts and `PromptMessage`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage, PromptMessage, Segment


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, None, or a list of text blocks. Else raises PartError."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Iterable):
        return "".join(_block_text(block) for block in content)
    raise PartError(
        f"`content` of a message must be a str, None or a list of text blocks, got {type(content).__name__}"
    )


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Mapping) and isinstance(block.get("text"), str):
        return block["text"]
    kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
    raise PartError(
        f"a content block of type {kind!r} is not text; only text is supported, drop it or describe it in words"
    )


def messages_from_dicts(messages: Iterable[ChatMessage]) -> tuple[PromptMessage, ...]:
    """OpenAI chat messages as PromptMessages that belong to no part."""
    return tuple(_message_from_dict(message) for message in messages)


def _message_from_dict(message: ChatMessage) -> PromptMessage:
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise PartError(f"a message needs a `role`, got {dict(message)!r}")
    return PromptMessage(
        role=role,
        segments=(Segment(text_of(message.get("content"))),),
        tool_calls=tuple(message.get("tool_calls") or ()),
        tool_call_id=message.get("tool_call_id"),
        name=message.get("name"),
    )


def template_dict(message: PromptMessage) -> dict[str, Any]:
    """The message as chat templates expect it: tool-call arguments as an object, not as a JSON string."""
    plain = message.to_dict()
    if message.tool_calls:
        plain["tool_calls"] = [_with_parsed_arguments(call) for call in message.tool_calls]
    return plain


def _with_parsed_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments)
        except json.JSONDecodeError:
            function["arguments"] = arguments  # the model wrote broken JSON: show it as it is
    return {**call, "function": function}
