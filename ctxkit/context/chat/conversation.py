"""conversation: a chat history in, parts out: pinned, grouped and repaired."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.chat.entry import Entry, Repair
from ctxkit.context.chat.reading import read_all
from ctxkit.context.chat.rounds import in_rounds
from ctxkit.context.labels import Label
from ctxkit.context.part import Part
from ctxkit.protocols import ChatMessage

__all__ = ["Conversation", "Repair", "conversation"]

FIRST_TASK_PRIORITY = 4.0
"""Of the first of several user messages: what a conversation is about is mostly said there."""

LAST_ROUND_PRIORITY = 8.0
"""Of the tool round that the model is to go on from: what was just returned is what is needed now."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat history as parts.

    parts: one per message that is sent, in order; `part.id` is "m" and the position of the message in the given list.
    repairs: what could not be sent as it was given, by position. Empty for a history that a provider would take.
    """

    parts: tuple[Part, ...]
    repairs: tuple[Repair, ...]


def conversation(
    messages: Iterable[ChatMessage],
    *,
    keep_last_round: bool = True,
    labels: Mapping[int, Label] | None = None,
    pinned: Collection[int] = (),
) -> Conversation:
    """The parts of a chat history in OpenAI's form, ready for `fit`.

    messages: dicts with `role` and `content` (a str, None or a list of blocks), the oldest first.
    keep_last_round: require the last tool round after the last user message, at whatever level fits. (A repaired result
        at the very end is always required.)
    labels: of messages, by their position in the list. A message keeps its label however it is repaired.
    pinned: indices of messages of the user that are pinned as the last one is.

    Pinned: system and developer messages, the last user message, an assistant text at the very end (a prefill). The
    first of several user messages has priority 4.0, the last round 8.0.
    Grouped: user messages with the text that answers them; each tool call with its results and the reasoning before
    it. Whatever a pinned message would drag along stands alone.
    Never broken: what no provider would take is repaired, and each repair is recorded.

    Raises PartError, naming the index, for what is no chat message at all.
    """
    entries, repairs = read_all(messages)
    entries = in_rounds(entries, repairs)
    if entries:
        _pin(entries, pinned)
        _name_exchanges(entries)
        if keep_last_round:
            _require_last_round(entries)
        if entries[-1].folded:
            entries[-1].required = True  # the prompt goes on from here, as from a message of the user
    first = next((entry for entry in entries if entry.role in ("system", "developer")), None)
    parts = tuple(_part(entry, entry is first) for entry in entries)
    if labels:
        parts = tuple(replace(part, label=labels.get(entry.index)) for part, entry in zip(parts, entries, strict=True))
    return Conversation(parts, tuple(sorted(repairs, key=lambda repair: repair.index)))


def _pin(entries: Sequence[Entry], indices: Collection[int]) -> None:
    first: Entry | None = None
    last: Entry | None = None
    for entry in entries:
        role = entry.role
        if role == "user":
            if not entry.folded:
                first, last = first or entry, entry
                entry.pinned = entry.index in indices
        elif role == "system" or role == "developer":
            entry.pinned = True
    if first is not None and last is not None:
        last.pinned = True
        if first is not last:
            first.priority = FIRST_TASK_PRIORITY
    if entries[-1].says:
        entries[-1].pinned = True


def _name_exchanges(entries: Iterable[Entry]) -> None:
    """One group for user messages and the text that ends the answer to them; tool rounds have their names already."""
    users: list[Entry] = []
    texts: list[Entry] = []
    answered = False
    for entry in entries:
        role = entry.role
        if role == "user":
            if entry.folded:
                continue
            if answered:
                _name(users, texts)
                users, texts, answered = [], [], False
            users.append(entry)
        elif role == "assistant":
            answered = True
            if entry.group is None:
                texts.append(entry)
            else:
                texts.clear()  # said before this round, so not the end of the answer
    _name(users, texts)


def _name(users: Sequence[Entry], texts: Sequence[Entry]) -> None:
    if not users or len(users) + len(texts) < 2:
        return
    members = (*users, *texts)
    for entry in members:
        if entry.pinned:
            return
    name = f"exchange-m{users[0].index}"
    for entry in members:
        entry.group = name


def _require_last_round(entries: Sequence[Entry]) -> None:
    """Mark the last round that no user message follows."""
    group: str | None = None
    for entry in reversed(entries):
        if entry.asks or (group is not None and entry.group != group):
            return
        if entry.calls or entry.role == "tool":
            group = entry.group
        if group is not None:
            entry.required, entry.priority = True, LAST_ROUND_PRIORITY


def _part(entry: Entry, first_system: bool) -> Part:
    identity, role = f"m{entry.index}", entry.role
    if entry.plain and not first_system and not entry.required:
        priority, pinned, group = entry.priority, entry.pinned, entry.group
        return Part(
            "turn", entry.text, identity, "", "", priority, 1.0, pinned, group, role, (), None, message=entry.message
        )
    if role == "tool":
        return Part(
            "tool_result",
            entry.text,
            identity + entry.suffix,
            priority=entry.priority,
            group=entry.group,
            tool_call_id=entry.answers,
            required=entry.required,
            attachments=entry.attachments,
            message=entry.message,
        )
    kind = "tool_call" if entry.calls else "system" if first_system and entry.role == "system" else "turn"
    return Part(
        kind,  # type: ignore[arg-type]
        entry.text,
        identity,
        priority=entry.priority,
        pinned=entry.pinned,
        group=entry.group,
        role=entry.role,
        tool_calls=entry.calls,
        required=entry.required,
        verbatim=entry.verbatim,
        attachments=entry.attachments,
        message=entry.message,
    )
