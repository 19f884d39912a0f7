"""What the two providers' chat APIs refuse, as functions: one line per broken rule, nothing for valid messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxkit.context.chat.entry import CLIENT_CALLS
from ctxkit.context.chat.reading import THINKING_BLOCKS, call_type, speaks_beside_content
from ctxkit.protocols import ChatMessage

_OPENAI_ROLES = ("system", "developer", "user", "assistant", "tool")


def starts_with_user(messages: Iterable[ChatMessage]) -> bool:
    """Whether the first message after system and developer messages is the user's, as Anthropic asks."""
    for message in messages:
        if message.get("role") not in ("system", "developer"):
            return message.get("role") == "user"
    return False


def openai_problems(messages: Sequence[ChatMessage], *, prefill: bool = False) -> tuple[str, ...]:
    """Why OpenAI's chat API would refuse these messages; empty where it would not.

    prefill: the prompt may end with assistant text, which many servers continue.
    An empty string is a content like any other. Calls of a type that the provider answers need no result.
    """
    problems: list[str] = []
    waiting: set[str] = set()  # ids of the calls that the next message must answer
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            problems += _result_problems(index, message, waiting)
            waiting.discard(str(message.get("tool_call_id")))
            continue
        problems += _unanswered(index, waiting)
        problems += _message_problems(index, message)
        waiting = set()
        if message.get("role") == "assistant":
            problems += _call_problems(index, message)
            waiting = {str(call.get("id")) for call in _client_calls(message)}
    problems += _unanswered(len(messages), waiting)
    return (*problems, *_end_problems(messages, prefill))


def _client_calls(message: ChatMessage) -> list[Mapping[str, Any]]:
    return [call for call in message.get("tool_calls") or () if call_type(call) in CLIENT_CALLS]


def _unanswered(index: int, waiting: set[str]) -> list[str]:
    return [f"message {index}: call {one!r} is not answered before it" for one in sorted(waiting)]


def _message_problems(index: int, message: ChatMessage) -> list[str]:
    role = message.get("role")
    if role not in _OPENAI_ROLES:
        return [f"message {index}: unknown role {role!r}"]
    return _content_problems(index, message)


def _content_problems(index: int, message: ChatMessage) -> list[str]:
    content = message.get("content")
    if content is None:
        speaks = message.get("role") == "assistant" and speaks_beside_content(message)
        return [] if speaks else [f"message {index}: no content"]
    if isinstance(content, str):
        return []
    if not isinstance(content, Sequence):
        return [f"message {index}: content is a {type(content).__name__}"]
    return [] if content else [f"message {index}: content is an empty list"]


def _result_problems(index: int, message: ChatMessage, waiting: set[str]) -> list[str]:
    call_id = message.get("tool_call_id")
    problems = _content_problems(index, message)
    if not isinstance(call_id, str) or not call_id:
        return [*problems, f"message {index}: tool message without `tool_call_id`"]
    if call_id not in waiting:
        problems.append(f"message {index}: tool message answers {call_id!r}, which is no open call directly before it")
    return problems


def _call_problems(index: int, message: ChatMessage) -> list[str]:
    problems: list[str] = []
    if message.get("tool_calls") is not None and not message["tool_calls"]:
        problems.append(f"message {index}: `tool_calls` is an empty list")
    seen: set[str] = set()
    for call in _client_calls(message):
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id:
            problems.append(f"message {index}: a call without id")
        elif call_id in seen:
            problems.append(f"message {index}: two calls have the id {call_id!r}")
        seen.add(str(call_id))
        if call_type(call) == "function" and not isinstance((call.get("function") or {}).get("arguments"), str):
            problems.append(f"message {index}: arguments of call {call_id!r} are no str")
    return problems


def _end_problems(messages: Sequence[ChatMessage], prefill: bool) -> list[str]:
    if not messages:
        return ["no messages"]
    role = messages[-1].get("role")
    if role in ("user", "tool") or (prefill and role == "assistant"):
        return []
    return [f"message {len(messages) - 1}: the prompt ends with role {role!r}, not with user or tool"]


def anthropic_problems(messages: Sequence[ChatMessage]) -> tuple[str, ...]:
    """Why Anthropic's messages API would refuse these messages (the system prompt goes beside them); empty if not."""
    if not messages:
        return ("no messages",)
    problems: list[str] = []
    if messages[0].get("role") != "user":
        problems.append(f"message 0: the first message must be of the user, its role is {messages[0].get('role')!r}")
    waiting: list[str] = []
    used: set[str] = set()
    for index, message in enumerate(messages):
        problems += _row_problems(index, message)
        blocks = anthropic_blocks(message)
        problems += _answer_problems(index, blocks, waiting if message.get("role") == "user" else [])
        if message.get("role") != "user":
            problems += _unanswered(index, set(waiting))
        waiting = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
        problems += _use_problems(index, waiting, used)
    problems += _unanswered(len(messages), set(waiting))
    return (*problems, *_last_problems(len(messages) - 1, messages[-1]))


def anthropic_blocks(message: ChatMessage) -> list[Mapping[str, Any]]:
    """The content of a message of Anthropic's form, as blocks."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or () if isinstance(block, Mapping)]


def _row_problems(index: int, message: ChatMessage) -> list[str]:
    problems: list[str] = []
    role, blocks = message.get("role"), anthropic_blocks(message)
    if set(message) != {"role", "content"}:
        problems.append(f"message {index}: keys are {', '.join(sorted(message))}, not role and content")
    if role not in ("user", "assistant"):
        problems.append(f"message {index}: role {role!r} is neither user nor assistant")
    if not blocks:
        problems.append(f"message {index}: no content")
    for block in blocks:
        problems += [f"message {index}: {problem}" for problem in _block_problems(str(role), block)]
    if role == "assistant":
        problems += _thinking_problems(index, blocks)
    return problems


def _block_problems(role: str, block: Mapping[str, Any]) -> list[str]:
    kind = block.get("type")
    if kind == "text" and not str(block.get("text") or "").strip():
        return ["an empty text block"]
    if kind == "tool_use" and role != "assistant":
        return ["a tool_use that is not the assistant's"]
    if kind == "tool_use" and not isinstance(block.get("input"), Mapping):
        return [f"the input of tool_use {block.get('id')!r} is no object"]
    if kind == "tool_result" and role != "user":
        return ["a tool_result that is not in a user message"]
    if kind == "tool_result" and isinstance(block.get("content"), list):
        return [problem for inner in block["content"] for problem in _block_problems(role, inner)]
    return []


def _thinking_problems(index: int, blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    thinking = [block for block in blocks if block.get("type") in THINKING_BLOCKS]
    problems = [f"message {index}: a thinking block without signature" for block in thinking if not is_signed(block)]
    if thinking and blocks[0].get("type") not in THINKING_BLOCKS:
        problems.append(f"message {index}: there is thinking, and the first block is a {blocks[0].get('type')!r}")
    return problems


def is_signed(block: Mapping[str, Any]) -> bool:
    """Whether a thinking block carries what the provider checks it by."""
    return bool(block.get("signature") if block.get("type") == "thinking" else block.get("data"))


def _answer_problems(index: int, blocks: Sequence[Mapping[str, Any]], waiting: Sequence[str]) -> list[str]:
    """The results of a user message against the calls of the message before it."""
    problems: list[str] = []
    open_ids, other = set(waiting), False
    for block in blocks:
        if block.get("type") != "tool_result":
            other = True
            continue
        call_id = str(block.get("tool_use_id"))
        if call_id not in open_ids:
            problems.append(f"message {index}: a tool_result answers {call_id!r}, no open tool_use directly before it")
        elif other:
            problems.append(f"message {index}: the tool_result of {call_id!r} stands behind other content")
        open_ids.discard(call_id)
    return problems + [f"message {index}: tool_use {one!r} is not answered in it" for one in sorted(open_ids)]


def _use_problems(index: int, ids: Sequence[str], used: set[str]) -> list[str]:
    problems: list[str] = []
    for one in ids:
        if one in used:
            problems.append(f"message {index}: a second tool_use has the id {one!r}")
        used.add(one)
    return problems


def _last_problems(index: int, message: ChatMessage) -> list[str]:
    blocks = anthropic_blocks(message)
    text = str(blocks[-1].get("text") or "") if blocks else ""
    if message.get("role") == "assistant" and text != text.rstrip():
        return [f"message {index}: the assistant text that ends the prompt ends in white space"]
    return []
