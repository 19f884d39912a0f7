"""Between LangChain's messages and OpenAI's form of them, with the way back to the very same objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    convert_to_messages,
    convert_to_openai_data_block,
    is_data_content_block,
)

from ctxkit.errors import PartError
from ctxkit.protocols import PromptMessage
from ctxkit.tokens.blocks import MEDIA_TYPES
from ctxkit_connectors.form import Form, chat_call

Block = Mapping[str, Any]

CALL_BLOCKS = {
    "tool_use": ("id", "input"),  # Anthropic
    "tool_call": ("id", "args"),  # LangChain's own blocks
    "invalid_tool_call": ("id", "args"),
    "function_call": ("call_id", "arguments"),  # OpenAI's Responses API
    "custom_tool_call": ("call_id", "input"),
}
"""Content blocks that repeat a call of `tool_calls`: the keys of its id and of its arguments."""

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (AIMessage, "assistant"),
    (HumanMessage, "user"),
    (ToolMessage, "tool"),
    (FunctionMessage, "function"),
)
_COPIES_OF_CALLS = ("tool_calls", "function_call")  # in additional_kwargs
_PLAIN_EXTRAS = frozenset((*_COPIES_OF_CALLS, "refusal", "reasoning_content", "audio", "parsed"))


def to_openai(message: BaseMessage) -> dict[str, Any]:
    """The message in OpenAI's form, for planning and counting.

    Calls that LangChain could not parse are calls all the same: providers are sent them and want an answer. What a
    provider signed or ran itself stands in a form that nothing is taken from. Raises PartError for an unknown class.
    """
    form: dict[str, Any] = {"role": _role(message), "content": _content(message)}
    if message.name:
        form["name"] = message.name
    if isinstance(message, ToolMessage):
        form["tool_call_id"] = message.tool_call_id
    if isinstance(message, AIMessage):
        if calls := _calls(message):
            form["tool_calls"] = calls
        form.update(_extras(message, bool(calls)))
    return form


def _role(message: BaseMessage) -> str:
    if isinstance(message, SystemMessage):
        return str(message.additional_kwargs.get("__openai_role__", "system"))
    if isinstance(message, ChatMessage):
        return message.role
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    raise PartError(f"{type(message).__name__} is no chat message that a model can be sent")


def _content(message: BaseMessage) -> str | list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return content
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    kept = (block for block in blocks if not (isinstance(message, AIMessage) and block.get("type") in CALL_BLOCKS))
    return [_block(block, isinstance(message, AIMessage)) for block in kept] or ""


def _block(block: dict[str, Any], by_model: bool) -> dict[str, Any]:
    kind = str(block.get("type") or ("text" if "text" in block else "unknown"))
    if kind == "reasoning":  # may be signed: what it is called in OpenAI's form keeps it whole
        return {**block, "type": "thinking"}
    if kind in ("image", "file", "audio") and is_data_content_block(block):
        return _media(block)
    if by_model and kind not in (*MEDIA_TYPES, "text", "refusal", "thinking", "redacted_thinking"):
        return {"type": "server_tool_use", "block": block}
    return block if "type" in block else {**block, "type": kind}


def _media(block: dict[str, Any]) -> dict[str, Any]:
    try:
        return convert_to_openai_data_block(block)
    except (ValueError, KeyError):  # a form that chat completions lack, such as audio at a URL
        return block


def _calls(message: AIMessage) -> list[dict[str, Any]]:
    calls = [
        chat_call(call["id"], call["name"], call["args"]) for call in (*message.tool_calls, *message.invalid_tool_calls)
    ]
    known = {call["id"] for call in calls}
    for block in message.content if isinstance(message.content, list) else ():
        keys = CALL_BLOCKS.get(str(block.get("type"))) if isinstance(block, dict) else None
        if keys and isinstance(block, dict) and block.get(keys[0]) not in known:
            calls.append(chat_call(block.get(keys[0]), block.get("name"), block.get(keys[1])))
    return calls


def _extras(message: AIMessage, has_calls: bool) -> dict[str, Any]:
    """Of additional_kwargs what counts; what nobody knows marks the message as one that must not be edited."""
    given = {key: value for key, value in message.additional_kwargs.items() if value}
    extras = {key: given[key] for key in ("refusal", "reasoning_content", "audio") if key in given}
    if "function_call" in given and not has_calls:
        extras["function_call"] = given["function_call"]
    if opaque := sorted(given.keys() - _PLAIN_EXTRAS):
        extras["signature"] = ", ".join(opaque)
    return extras


class OpenAIForm(Form[BaseMessage]):
    """LangChain messages, their OpenAI form in `dicts`, and the way back."""

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        self.messages = list(messages)
        super().__init__((to_openai(message), (message,)) for message in self.messages)
        self._blocks = {
            id(block): given
            for message, form in zip(self.messages, self.dicts, strict=True)
            for block, given in _pairs(message, form)
        }

    def back(self, sent: PromptMessage) -> BaseMessage:
        """The LangChain message of a message of a plan.

        The same object where nothing was changed; a copy with other content and calls (and the id, name and metadata of
        the original) where it was reduced; a new message where a repair wrote one.
        """
        (message,) = self._back(sent)
        return message

    def reduced(self, items: Sequence[BaseMessage], sent: PromptMessage) -> Sequence[BaseMessage]:
        (message,) = items
        if isinstance(message, AIMessage):
            return (self._assistant(message, sent),)
        return (message.model_copy(update={"content": self._content(message, sent)}),)

    def made(self, sent: PromptMessage) -> Sequence[BaseMessage]:
        return (_from_dict(sent.to_dict()),)

    def as_sent(self, message: PromptMessage) -> PromptMessage:
        """A message of a plan as LangChain has it: with the name and metadata that it keeps, arguments spelled anew."""
        if message.owner is None or id(message.original) in self._place:
            return message
        form = to_openai(self.back(message))
        calls = tuple(form.get("tool_calls", ()))
        return replace(message, tool_calls=calls, name=form.get("name"), original=form)

    def _content(self, message: BaseMessage, sent: PromptMessage) -> str | list[Any]:
        if isinstance(message.content, str) and not sent.blocks:
            return sent.content
        return [
            {"type": "text", "text": segment.text}
            if segment.block is None
            else self._blocks.get(id(segment.block), segment.block)
            for segment in sent.segments
            if segment.block is not None or segment.text
        ]

    def _assistant(self, message: AIMessage, sent: PromptMessage) -> AIMessage:
        content = self._content(message, sent)
        if isinstance(content, list):
            content += _call_blocks(message, sent.tool_calls)
        valid, invalid = parsed_calls(sent.tool_calls, message.tool_calls)
        extras = {key: value for key, value in message.additional_kwargs.items() if key not in _COPIES_OF_CALLS}
        update = {"content": content, "tool_calls": valid, "invalid_tool_calls": invalid, "additional_kwargs": extras}
        if isinstance(message, AIMessageChunk):
            update["tool_call_chunks"] = []
        return message.model_copy(update=update)


def _pairs(message: BaseMessage, form: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """(block of the form, block as LangChain has it) of a message's content."""
    if isinstance(message.content, str) or isinstance(form["content"], str):
        return ()
    calls = CALL_BLOCKS if isinstance(message, AIMessage) else {}
    given = [one for one in message.content if isinstance(one, str) or one.get("type") not in calls]
    return zip(form["content"], given, strict=True)


def _from_dict(form: dict[str, Any]) -> BaseMessage:
    return convert_to_messages([{**form, "content": form.get("content") or ""}])[0]


def parsed_calls(calls: Sequence[Mapping[str, Any]], known: Sequence[ToolCall] = ()) -> tuple[list[Any], list[Any]]:
    """Calls of OpenAI's form as `tool_calls` and `invalid_tool_calls`; one that is in `known` is the same object."""
    same = {(call["id"], chat_call("", "", call["args"])["function"]["arguments"]): call for call in known}
    valid: list[Any] = []
    invalid: list[Any] = []
    for call in calls:
        body = call.get("function") or {}
        name, arguments = body.get("name"), body.get("arguments")
        kept = same.get((call.get("id"), str(arguments)))
        args = kept["args"] if kept else _object(arguments)
        if kept or args is not None:
            valid.append(kept or {"type": "tool_call", "id": call.get("id"), "name": name, "args": args})
        else:
            invalid.append(
                {"type": "invalid_tool_call", "id": call.get("id"), "name": name, "args": arguments, "error": None}
            )
    return valid, invalid


def _object(arguments: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(arguments)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _call_blocks(message: AIMessage, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks that repeat the calls, with the arguments that are sent now."""
    sent = {call.get("id"): str((call.get("function") or {}).get("arguments")) for call in calls}
    blocks = []
    for block in message.content:
        keys = CALL_BLOCKS.get(str(block.get("type"))) if isinstance(block, dict) else None
        if keys and isinstance(block, dict) and block.get(keys[0]) in sent:
            text = sent[block.get(keys[0])]
            value = text if isinstance(block.get(keys[1]), str) else _object(text)
            blocks.append(block if value is None or value == block.get(keys[1]) else {**block, keys[1]: value})
    return blocks
