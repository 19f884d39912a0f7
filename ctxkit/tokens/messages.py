"""Between OpenAI's message dicts and `PromptMessage`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage, PromptMessage, Segment

_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
_KNOWN_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "name"})


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, None, or a list of blocks. Else raises PartError."""
    if isinstance(content, str):  # nearly always, and once for each token of a stream
        return content
    return "".join(segment.text for segment in segments_of(content))


def segments_of(content: Any) -> tuple[Segment, ...]:
    """A message's `content` as segments that belong to no part. Text that nothing interrupts is one segment."""
    if content is None or isinstance(content, str):
        return (Segment(content or ""),)
    if not isinstance(content, Iterable):
        raise PartError(
            f"`content` of a message must be a str, None or a list of content blocks, got {type(content).__name__}"
        )
    segments: list[Segment] = []
    for segment in map(_segment, content):
        if segment.block is None and segments and segments[-1].block is None:
            segments[-1] = Segment(segments[-1].text + segment.text)
        else:
            segments.append(segment)
    return tuple(segments) or (Segment(""),)


def _segment(block: Any) -> Segment:
    if isinstance(block, str):
        return Segment(block)
    if not isinstance(block, Mapping):
        raise PartError(f"a content block must be an object with a `type`, got {type(block).__name__}")
    if isinstance(block.get("text"), str) and block.get("type", "text") in _TEXT_TYPES:
        return Segment(block["text"])
    if not isinstance(block.get("type"), str):
        raise PartError(f"a content block needs a `type`, got the keys {', '.join(map(repr, block)) or 'none'}")
    return Segment("", block=block)


def messages_from_dicts(messages: Iterable[ChatMessage]) -> tuple[PromptMessage, ...]:
    """OpenAI chat messages as PromptMessages that belong to no part; each is sent as it was given."""
    return tuple(_message_from_dict(message) for message in messages)


def _message_from_dict(message: ChatMessage) -> PromptMessage:
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise PartError(f"a message needs a `role`, got {dict(message)!r}")
    return PromptMessage(
        role=role,
        segments=segments_of(message.get("content")),
        tool_calls=tuple(message.get("tool_calls") or ()),
        tool_call_id=message.get("tool_call_id"),
        name=message.get("name"),
        original=dict(message),
    )


def template_dict(message: PromptMessage) -> dict[str, Any]:
    """The message as chat templates expect it: no blocks but text, tool-call arguments as an object and not as JSON."""
    plain = {**message.to_dict(), "content": message.content}
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


def further_fields(message: PromptMessage) -> dict[str, Any]:
    """What the message is sent with besides the fields that ctxkit knows: `reasoning_content` and its like."""
    original = message.original or {}
    return {key: value for key, value in original.items() if key not in _KNOWN_KEYS and value}
