"""Items of the Responses API as chat messages, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxkit.protocols import PromptMessage
from ctxkit_connectors.form import Form, arguments_of, chat_call

Item = Mapping[str, Any]
Pair = tuple[dict[str, Any], list[Item]]

_TEXT = frozenset({"input_text", "output_text", "text"})


class ItemsForm(Form[Item]):
    """Input items of a model call. instructions: the agent's, which stand before them as a system message.

    A call and its output are a tool round, of whatever kind. Reasoning stays with the item it led to, and neither is
    ever edited then. An item of another kind is sent whole or not at all.
    """

    def __init__(self, items: Sequence[Item], instructions: str | None = None) -> None:
        system: list[Pair] = [({"role": "system", "content": instructions}, [])] if instructions else []
        super().__init__([*system, *_pairs(items)])
        self._given = dict(self._given_blocks())

    def reduced(self, items: Sequence[Item], sent: PromptMessage) -> Sequence[Item]:
        arguments = arguments_of(sent)
        return [self._reduced(item, sent, arguments) for item in items]

    def made(self, sent: PromptMessage) -> Sequence[Item]:
        if sent.role == "tool":
            return [{"type": "function_call_output", "call_id": sent.tool_call_id, "output": sent.content}]
        return [{"role": sent.role, "content": sent.content}] if sent.content else []

    def _reduced(self, item: Item, sent: PromptMessage, arguments: Mapping[str, str]) -> Item:
        kind = str(item.get("type"))
        if kind == "function_call":
            return {**item, "arguments": arguments.get(str(item.get("call_id")), item.get("arguments"))}
        if kind.endswith("_output"):
            return {**item, "output": self._sent_content(sent, item.get("output"), {"type": "input_text"})}
        said = {"type": "output_text", "annotations": []} if sent.role == "assistant" else {"type": "input_text"}
        return {**item, "content": self._sent_content(sent, item.get("content"), said)}

    def _sent_content(self, sent: PromptMessage, given: Any, said: Mapping[str, Any]) -> Any:
        if isinstance(given, str) and not sent.blocks:
            return sent.content
        return [
            {**said, "text": segment.text}
            if segment.block is None
            else self._given.get(id(segment.block), segment.block)
            for segment in sent.segments
            if segment.block is not None or segment.text
        ]

    def _given_blocks(self) -> Iterator[tuple[int, Item]]:
        for message, items in zip(self.dicts, self._items, strict=True):
            content = message["content"]
            if isinstance(content, list) and items and "signature" not in message:
                given = items[-1].get("output" if message["role"] == "tool" else "content")
                yield from ((id(one), block) for one, block in zip(content, _blocks(given or ()), strict=False))


def _pairs(items: Sequence[Item]) -> Iterator[Pair]:
    """(chat message, its items): calls that stand side by side are of one message, with the reasoning before them."""
    held: list[Item] = []  # reasoning that waits for what it led to
    calls: Pair | None = None
    for item in items:
        if item.get("type") == "reasoning":
            held.append(item)
            continue
        message = _message(item)
        if held:
            message["signature"] = "reasoning"  # marks what may not be edited
        if calls is not None and "tool_calls" in message:
            calls[0]["tool_calls"] += message["tool_calls"]
            calls[0].update({key: value for key, value in message.items() if key == "signature"})
            calls[1].extend([*held, item])
        else:
            if calls is not None:
                yield calls
            pair: Pair = (message, [*held, item])
            calls = pair if "tool_calls" in message else None
            if calls is None:
                yield pair
        held = []
    if calls is not None:
        yield calls
    if held:
        yield _opaque(held[-1]), held


def _message(item: Item) -> dict[str, Any]:
    kind, call_id = str(item.get("type") or "message"), item.get("call_id")
    if kind == "message" and "role" in item:
        return {"role": item["role"], "content": _content(item.get("content"))}
    if call_id is not None and kind.endswith("_output"):
        return {"role": "tool", "tool_call_id": call_id, "content": _content(item.get("output"))}
    if kind == "function_call":
        call = chat_call(str(call_id), item.get("name"), item.get("arguments"))
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if call_id is not None:  # a call of another kind: counted by all that stands in it, and not edited
        call = chat_call(str(call_id), kind, json.dumps(dict(item), ensure_ascii=False, default=str))
        return {"role": "assistant", "content": None, "tool_calls": [call], "signature": kind}
    return _opaque(item)


def _opaque(item: Item) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "server_tool_use", "block": dict(item)}]}


def _content(content: Any) -> str | list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return content or ""
    return [_block(block) for block in _blocks(content)]


def _blocks(content: Any) -> list[Item]:
    return [content] if isinstance(content, Mapping) else list(content)  # one alone: a screenshot, say


def _block(block: Item) -> dict[str, Any]:
    """A new dict for each block, so that it can be told from all others."""
    kind = str(block.get("type") or "unknown")
    if kind in _TEXT:
        return {"type": "text", "text": str(block.get("text") or "")}
    if kind == "input_image" and block.get("image_url"):
        return {"type": "image_url", "image_url": {"url": block["image_url"], "detail": block.get("detail") or "auto"}}
    return {**block, "type": kind}
