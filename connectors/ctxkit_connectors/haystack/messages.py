"""Haystack's chat messages in OpenAI's form, and back."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from haystack.dataclasses import ChatMessage, ToolCall

from ctxkit.protocols import PromptMessage
from ctxkit_connectors.form import Form, arguments_of


class MessagesForm(Form[ChatMessage]):
    """One chat message for each. What a model thought is counted, and its message then never edited."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        super().__init__((_to_openai(message), [message]) for message in messages)

    def reduced(self, items: Sequence[ChatMessage], sent: PromptMessage) -> Sequence[ChatMessage]:
        return [_reduced(message, sent) for message in items]

    def made(self, sent: PromptMessage) -> Sequence[ChatMessage]:
        return [ChatMessage.from_openai_dict_format(sent.to_dict())]


def _to_openai(message: ChatMessage) -> dict[str, Any]:
    form: dict[str, Any] = message.to_openai_dict_format(require_tool_call_ids=False)
    if message.reasonings:
        form["reasoning_content"] = "".join(one.reasoning_text for one in message.reasonings)
        form["signature"] = "reasoning"
    return form


def _reduced(message: ChatMessage, sent: PromptMessage) -> ChatMessage:
    meta, name = message.meta, message.name
    result = message.tool_call_result
    if result is not None:
        return ChatMessage.from_tool(sent.content, origin=result.origin, error=result.error, meta=meta)
    if sent.role == "assistant":
        calls = _calls(message.tool_calls, arguments_of(sent))
        return ChatMessage.from_assistant(sent.content or None, meta=meta, name=name, tool_calls=calls or None)
    return ChatMessage.from_user(content_parts=_parts(message, sent), meta=meta, name=name)


def _calls(calls: Sequence[ToolCall], arguments: Mapping[str, str]) -> list[ToolCall]:
    return [
        replace(call, arguments=json.loads(arguments[str(call.id)])) if str(call.id) in arguments else call
        for call in calls
    ]


def _parts(message: ChatMessage, sent: PromptMessage) -> list[Any]:
    """The texts as they are sent now, with the images and files between them."""
    images, files = iter(message.images), iter(message.files)
    return [
        segment.text if segment.block is None else next(images if segment.block["type"] == "image_url" else files)
        for segment in sent.segments
        if segment.block is not None or segment.text
    ]
