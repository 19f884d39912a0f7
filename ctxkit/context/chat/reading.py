"""Messages read one by one: what they hold, and repairs that need no look at their neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxkit.context.chat.entry import CLIENT_CALLS, REASONING_KEYS, Entry, Repair
from ctxkit.context.part import Attachment
from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage

ROLES = ("user", "assistant", "system", "developer", "tool", "function")
TEXT_BLOCKS = ("text", "input_text", "output_text")
THINKING_BLOCKS = ("thinking", "redacted_thinking")
_PLAIN_ROLES = ("user", "assistant", "system", "developer")
_SIGNED_KEYS = frozenset(("reasoning_details", "thinking_blocks", "signature", "audio"))
_SIGNED_CALL_KEYS = frozenset(("signature", "thought_signature", "extra_content"))
_REASONING_KEYS = frozenset(REASONING_KEYS)
_SPOKEN_KEYS = frozenset(("tool_calls", "refusal", "audio", *REASONING_KEYS))


def read_all(messages: Iterable[ChatMessage]) -> tuple[list[Entry], list[Repair]]:
    """An entry per message, without the empty ones. Raises PartError for what is no chat message, naming its index."""
    reader = Reader()
    entries: list[Entry] = []
    for index, message in enumerate(messages):
        if type(message) is dict and len(message) == 2:  # nearly every message: a role and a text
            role, content = message.get("role"), message.get("content")
            if type(content) is str and content and role in _PLAIN_ROLES:
                entries.append(Entry(index, message, role, content, True))
                continue
        entry = _plain_result(index, message) or reader.read(index, message)
        if entry is not None:
            entries.append(entry)
    return entries, reader.repairs


def _plain_result(index: int, message: ChatMessage) -> Entry | None:
    """The entry of a tool result that is a text and the id of a call; None for any other message."""
    if type(message) is not dict or message.get("role") != "tool":
        return None
    content, call_id = message.get("content"), message.get("tool_call_id")
    if type(content) is not str or type(call_id) is not str or message.get("tool_calls"):
        return None
    entry = Entry(index, message, "tool", content)
    entry.answers = call_id
    return entry


class Reader:
    """Reads any message; remembers what it repaired, and the id it gave to the latest legacy function call."""

    def __init__(self) -> None:
        self.repairs: list[Repair] = []
        self._function_id = ""

    def read(self, index: int, message: ChatMessage) -> Entry | None:
        """The entry of one message, None for an assistant message that says nothing. Raises PartError."""
        role = _role(index, message)
        message = self._without_function(index, message)
        role = str(message["role"])
        message = self._with_calls_repaired(index, message)
        text, attachments = split_content(index, message.get("content"))
        if role == "assistant" and not text and not attachments and not speaks_beside_content(message):
            self._note(index, "assistant message with no content and no tool calls", "dropped")
            return None
        entry = Entry(index, self._with_content_repaired(index, message, role), role, text)
        entry.attachments = attachments
        if role == "assistant":
            _read_assistant(entry)
        elif role == "tool":
            entry.answers = _call_id(index, message)
        return entry

    def _note(self, index: int, problem: str, action: str) -> None:
        self.repairs.append(Repair(index, problem, action))

    def _without_function(self, index: int, message: ChatMessage) -> ChatMessage:
        """Functions, which tools replaced, as tools."""
        if message["role"] == "function":
            self._note(index, "role 'function' is no longer taken", "sent as a tool result")
            return {**message, "role": "tool", "tool_call_id": self._function_id}
        call = message.get("function_call")
        if not call or message["role"] != "assistant":
            return message
        rest = {key: value for key, value in message.items() if key != "function_call"}
        if message.get("tool_calls"):
            self._note(index, "`function_call` beside `tool_calls`", "left out")
            return rest
        self._note(index, "`function_call` is no longer taken", "sent as a tool call")
        self._function_id = f"function-{index}"
        return {**rest, "tool_calls": [{"id": self._function_id, "type": "function", "function": call}]}

    def _with_calls_repaired(self, index: int, message: ChatMessage) -> ChatMessage:
        calls = message.get("tool_calls")
        if calls is None:
            return message
        _check_calls(index, message)
        if not calls:
            self._note(index, "`tool_calls` is an empty list", "left out")
            return {key: value for key, value in message.items() if key != "tool_calls"}
        fixed = [self._with_arguments(index, call) for call in calls]
        return message if fixed == list(calls) else {**message, "tool_calls": fixed}

    def _with_arguments(self, index: int, call: Mapping[str, Any]) -> Mapping[str, Any]:
        """The call, its arguments as a string. A string that is no JSON stays: the model wrote it so."""
        if call_type(call) != "function":
            return call
        arguments = call["function"].get("arguments")
        if isinstance(arguments, str):
            if arguments and not _is_json(arguments):
                self._note(index, f"arguments of call {call.get('id')!r} are no JSON", "kept as they are")
            return call
        self._note(index, f"arguments of call {call.get('id')!r} are no str", "written as JSON")
        written = "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False, default=str)
        return {**call, "function": {**call["function"], "arguments": written}}

    def _with_content_repaired(self, index: int, message: ChatMessage, role: str) -> ChatMessage:
        content = message.get("content")
        if content is None and role != "assistant":
            self._note(index, f"{role} message without content", "sent with an empty text")
            return {**message, "content": ""}
        if isinstance(content, Sequence) and not isinstance(content, str) and not content:
            self._note(index, "content is an empty list", "sent without content")
            return {**message, "content": None if role == "assistant" else ""}
        return message


def split_content(index: int, content: Any) -> tuple[str, tuple[Attachment, ...]]:
    """The text of a content, and its other blocks at their character offsets. Raises PartError."""
    if content is None or isinstance(content, str):
        return content or "", ()
    if not isinstance(content, Sequence):
        raise PartError(
            f"message {index}: `content` must be a str, None or a list of blocks, got {type(content).__name__}"
        )
    texts: list[str] = []
    attachments: list[Attachment] = []
    offset = 0
    for block in content:
        kind = _block_type(index, block)
        if kind in TEXT_BLOCKS and isinstance(block.get("text"), str):
            texts.append(block["text"])
            offset += len(block["text"])
        else:
            attachments.append(Attachment(offset, block))
    return "".join(texts), tuple(attachments)


def speaks_beside_content(message: ChatMessage) -> bool:
    """Whether an assistant message holds something although its content is empty."""
    return _holds(message, _SPOKEN_KEYS)


def call_type(call: Mapping[str, Any]) -> str:
    """The type of a tool call; servers that know no other leave "function" out."""
    return str(call.get("type") or "function")


def _role(index: int, message: Any) -> str:
    if not isinstance(message, Mapping):
        raise PartError(
            f"message {index} is a {type(message).__name__}, not a mapping with `role` and `content`; "
            "client libraries' message objects have a method that gives one"
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise PartError(f"message {index}: `role` must be one of {', '.join(ROLES[:-1])}, got {role!r}")
    if role != "assistant" and message.get("tool_calls"):
        raise PartError(f"message {index}: only an assistant message has `tool_calls`, its role is {role!r}")
    return role


def _block_type(index: int, block: Any) -> str:
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        raise PartError(f"message {index}: a content block must be a mapping with a `type`, got {block!r:.80}")
    kind: str = block["type"]
    if kind == "tool_result" or (kind == "tool_use" and "name" in block):
        raise PartError(
            f"message {index} is written in Anthropic's form (a {kind!r} block); pass `from_anthropic(messages)`"
        )
    return kind


def _check_calls(index: int, message: ChatMessage) -> None:
    calls = message["tool_calls"]
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise PartError(f"message {index}: `tool_calls` must be a list, got {type(calls).__name__}")
    for call in calls:
        if not isinstance(call, Mapping):
            raise PartError(f"message {index}: a tool call must be a mapping, got {type(call).__name__}")
        kind = call_type(call)
        if kind in CLIENT_CALLS:
            body = call.get(kind)
            if not isinstance(body, Mapping) or not isinstance(body.get("name"), str):
                raise PartError(f"message {index}: a tool call must have a `{kind}` with a `name`, got {call!r:.80}")


def _call_id(index: int, message: ChatMessage) -> str:
    call_id = message.get("tool_call_id")
    if call_id is not None and not isinstance(call_id, str):
        raise PartError(f"message {index}: `tool_call_id` must be a str, got {type(call_id).__name__}")
    return call_id or ""


def _read_assistant(entry: Entry) -> None:
    message = entry.message
    every = message.get("tool_calls") or ()
    entry.calls = tuple(call for call in every if call_type(call) in CLIENT_CALLS)
    entry.verbatim = (
        len(entry.calls) < len(every)
        or _holds(message, _SIGNED_KEYS)
        or any(_holds(call, _SIGNED_CALL_KEYS) for call in every)
    )
    reasons, thinks = _holds(message, _REASONING_KEYS), True
    if entry.attachments:
        kinds = [str(attachment.block["type"]) for attachment in entry.attachments]
        entry.verbatim |= any(kind in THINKING_BLOCKS or _is_hosted(kind) for kind in kinds)
        reasons, thinks = True, all(kind in THINKING_BLOCKS for kind in kinds)
    silent = not every and not entry.text.strip() and not message.get("refusal") and not message.get("audio")
    entry.thought = silent and reasons and thinks
    if not entry.text and not every and isinstance(message.get("refusal"), str):
        entry.text = message["refusal"]


def _holds(message: Mapping[str, Any], keys: frozenset[str]) -> bool:
    """Whether one of the keys is there and has a value."""
    return not keys.isdisjoint(message) and any(message.get(key) for key in keys)


def _is_hosted(kind: str) -> bool:
    """A block of a tool that the provider ran inside the message."""
    return kind in ("server_tool_use", "mcp_tool_use") or kind.endswith("_tool_result")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
