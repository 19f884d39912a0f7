"""Between OpenAI's form of a conversation and Anthropic's: `to_anthropic`, `from_anthropic`.

A conversation that Anthropic's API takes comes back equal from the way there and back: signed thinking, cache_control,
images and errors of tool results included. The forms differ in this:

- the system prompt stands beside the messages; a system message in their midst becomes text in the user's role
- the results of parallel calls share one user message, with what the user says next
- neighbours of one role are one message, and call ids are unique in the whole conversation
- the blocks that OpenAI has no form for (thinking, hosted tools) stand in OpenAI-form content as they are
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxkit.context.chat.blocks import (
    CALL_MARKER,
    from_anthropic_block,
    from_tool_use,
    is_plain_text,
    to_anthropic_blocks,
    to_tool_use,
)
from ctxkit.context.chat.entry import CLIENT_CALLS
from ctxkit.context.chat.grammar import is_signed
from ctxkit.context.chat.reading import THINKING_BLOCKS, call_type
from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage

Blocks = list[dict[str, Any]]

EMPTY_TEXT = "(empty)"
SYSTEM_HEADING = "[system message]\n"


def to_anthropic(messages: Iterable[ChatMessage]) -> tuple[str | Blocks, list[dict[str, Any]]]:
    """The system prompt ("" where there is none; blocks where it has more than text) and the messages for Anthropic.

    messages: OpenAI's form, valid by `openai_problems`. Where the first one after the system prompt is the user's, the
    result is valid by `anthropic_problems`. What the API has no place for is left out: empty texts, unsigned thinking,
    names of speakers, white space at the end of a prefill. Raises PartError for an unknown role, naming the index.
    """
    system: list[ChatMessage] = []
    sent: list[dict[str, Any]] = []
    ids = _CallIds()
    for index, message in enumerate(messages):
        role = message.get("role")
        if role in ("system", "developer") and not sent:
            system.append(message)
        else:
            _append(sent, *_converted(index, message, ids))
    for message in sent:
        _thinking_first(message)
    _strip_end(sent)
    return _system_prompt(system), sent


class _CallIds:
    """Ids unique in the conversation: a re-used one gets a number, in the call and in its results."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._current: dict[str, str] = {}
        self._next: dict[str, int] = {}

    def new(self, call_id: str) -> str:
        unique, number = call_id, self._next.get(call_id, 2)
        while unique in self._given:
            unique, number = f"{call_id}-{number}", number + 1
        self._given.add(unique)
        self._current[call_id], self._next[call_id] = unique, number
        return unique

    def current(self, call_id: str) -> str:
        return self._current.get(call_id, call_id)


def _system_prompt(messages: Sequence[ChatMessage]) -> str | Blocks:
    if all(isinstance(one.get("content"), str) and "cache_control" not in one for one in messages):
        return "\n\n".join(str(one["content"]) for one in messages)
    return [block for message in messages for block in _marked(to_anthropic_blocks(message.get("content")), message)]


def _marked(blocks: Blocks, message: ChatMessage) -> Blocks:
    """A cache mark of the message, on its last block."""
    if blocks and message.get("cache_control"):
        blocks[-1] = {**blocks[-1], "cache_control": message["cache_control"]}
    return blocks


def _converted(index: int, message: ChatMessage, ids: _CallIds) -> tuple[str, str | Blocks]:
    """Role and content of one message; no blocks where nothing is left of it."""
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        return "user", [_tool_result(message, ids)]
    if role in ("system", "developer"):
        return "user", [{"type": "text", "text": SYSTEM_HEADING}, *to_anthropic_blocks(content)]
    if role not in ("user", "assistant"):
        raise PartError(f"message {index}: role {role!r} has no counterpart in Anthropic's form")
    if isinstance(content, str) and content.strip() and message.keys() == {"role", "content"}:
        return role, content
    if role == "assistant":
        return role, _assistant_blocks(message, ids)
    return role, _marked(to_anthropic_blocks(content), message) or [{"type": "text", "text": EMPTY_TEXT}]


def _tool_result(message: ChatMessage, ids: _CallIds) -> dict[str, Any]:
    content = message.get("content")
    rest = {key: message[key] for key in message if key not in ("role", "content", "tool_call_id", "name")}
    return {
        "type": "tool_result",
        "tool_use_id": ids.current(str(message.get("tool_call_id"))),
        "content": content if isinstance(content, str) else to_anthropic_blocks(content),
        **rest,
    }


def _assistant_blocks(message: ChatMessage, ids: _CallIds) -> Blocks:
    """Thinking, content and calls; a call whose place the content marks stands there, the others at the end."""
    calls = [call for call in message.get("tool_calls") or () if call_type(call) in CLIENT_CALLS]
    uses = {str(call.get("id")): to_tool_use(call, ids.new(str(call.get("id")))) for call in calls}
    said = to_anthropic_blocks(message.get("content") or message.get("refusal"))
    blocks: Blocks = []
    for block in (*_kept_thinking(message, said), *said):
        if block["type"] == CALL_MARKER:
            blocks += [uses.pop(str(block.get("id")))] if str(block.get("id")) in uses else []
        elif block["type"] not in THINKING_BLOCKS or is_signed(block):
            blocks.append(block)
    return _marked([*blocks, *uses.values()], message)


def _kept_thinking(message: ChatMessage, said: Sequence[Mapping[str, Any]]) -> Blocks:
    """Thinking that some libraries keep beside the content, where the content has none."""
    if any(block["type"] in THINKING_BLOCKS for block in said):
        return []
    return [dict(block) for block in message.get("thinking_blocks") or ()]


def _append(sent: list[dict[str, Any]], role: str, content: str | Blocks) -> None:
    if not content:
        return
    if sent and sent[-1]["role"] == role:
        sent[-1]["content"] = _as_blocks(sent[-1]["content"])
        sent[-1]["content"] += _as_blocks(content)
    else:
        sent.append({"role": role, "content": content})


def _as_blocks(content: str | Blocks) -> Blocks:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _thinking_first(message: dict[str, Any]) -> None:
    """After a merge of assistant messages the thinking of the later one may stand in the midst."""
    blocks = message["content"]
    if isinstance(blocks, list) and blocks[0]["type"] not in THINKING_BLOCKS:
        message["content"] = sorted(blocks, key=lambda block: block["type"] not in THINKING_BLOCKS)


def _strip_end(sent: list[dict[str, Any]]) -> None:
    """A prefill must not end in white space."""
    if not sent or sent[-1]["role"] != "assistant":
        return
    content = sent[-1]["content"]
    if isinstance(content, str):
        sent[-1]["content"] = content.rstrip()
    elif content[-1]["type"] == "text":
        content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}


def from_anthropic(
    messages: Iterable[ChatMessage], system: str | Sequence[Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form, the system prompt (if any) first.

    Tool results become messages of their own, before the rest of their user message. `is_error`, `cache_control` and
    other keys of a tool block become keys of the message or the call. Raises PartError for another role than user and
    assistant, naming the index.
    """
    told: list[dict[str, Any]] = []
    if system:
        told.append({"role": "system", "content": system if isinstance(system, str) else _blocks_from(system)})
    for index, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant"):
            raise PartError(f"message {index}: `role` must be user or assistant in Anthropic's form, got {role!r}")
        if content is None or isinstance(content, str):
            told.append({"role": role, "content": content or ""})
        else:
            told += _from_user(content) if role == "user" else [_from_assistant(content)]
    return told


def _blocks_from(blocks: Iterable[Mapping[str, Any]]) -> Blocks:
    return [from_anthropic_block(block) for block in blocks]


def _from_user(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    results = [_from_result(block) for block in blocks if block.get("type") == "tool_result"]
    said = _blocks_from(block for block in blocks if block.get("type") != "tool_result")
    if results and is_plain_text(said):
        return [*results, {"role": "user", "content": said[0]["text"]}]
    return [*results, {"role": "user", "content": said or ""}] if said or not results else results


def _from_result(block: Mapping[str, Any]) -> dict[str, Any]:
    content = block.get("content")
    rest = {key: value for key, value in block.items() if key not in ("type", "tool_use_id", "content")}
    told = content if isinstance(content, str) else _blocks_from(content or ()) or ""
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": told, **rest}


def _from_assistant(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    if not uses:
        return {"role": "assistant", "content": _blocks_from(blocks) or ""}
    said = _blocks_from(block for block in blocks if block.get("type") != "tool_use")
    content: Any = said or None
    if list(blocks[len(said) :]) != uses:  # calls stand between other blocks: mark their places
        content = [_marked_place(block) for block in blocks]
    elif is_plain_text(said):
        content = said[0]["text"]
    return {"role": "assistant", "content": content, "tool_calls": [from_tool_use(block) for block in uses]}


def _marked_place(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block in OpenAI's form; of a call, the marker of its place."""
    is_call = block.get("type") == "tool_use"
    return {"type": CALL_MARKER, "id": block["id"]} if is_call else from_anthropic_block(block)
