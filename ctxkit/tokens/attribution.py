"""Who owns each character of a rendered prompt, and so each token."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from ctxkit.protocols import TEMPLATE, PromptMessage

Span = tuple[int, int]

_HEADER_END_CHARS = 24  # between a role's name and the content: at most something like "<|end_header_id|>" and breaks


def locate_contents(text: str, messages: Sequence[PromptMessage]) -> list[Span | None]:
    """Where each message's content stands in the rendered text, by searching forward in order.

    A template that trims its contents is found by the trimmed text; what it rewrites altogether is None.
    """
    spans: list[Span | None] = []
    cursor = 0
    for message in messages:
        content = message.content
        wanted = content if content and text.find(content, cursor) >= 0 else content.strip()
        at = _find_behind_role(text, wanted, message.role, cursor) if wanted else -1
        spans.append(None if at < 0 else (at, at + len(wanted)))
        cursor = cursor if at < 0 else at + len(wanted)
    return spans


def header_starts(text: str, messages: Sequence[PromptMessage], controls: Sequence[int]) -> list[int]:
    """Where each message begins in the rendered text: at the control token before its role's name.

    controls: where control tokens begin, rising. Without one, or without the role's name, a message begins where the
    one before it ends. The starts never decrease.
    """
    starts: list[int] = []
    cursor = 0
    for message, span in zip(messages, locate_contents(text, messages), strict=True):
        at = text.find(message.role, cursor) if span is None else text.rfind(message.role, cursor, span[0])
        before = bisect_right(controls, at) - 1 if at >= 0 else -1
        starts.append(controls[before] if before >= 0 and controls[before] >= cursor else cursor)
        cursor = max(cursor, at + len(message.role) if span is None else span[1])
    return starts


def _find_behind_role(text: str, wanted: str, role: str, cursor: int) -> int:
    """First place of `wanted`, unless that is the role's name in the header and it comes again right behind it."""
    at, header = text.find(wanted, cursor), text.find(role, cursor)
    if header < 0 or at >= header + len(role) or at + len(wanted) <= header:
        return at
    again = text.find(wanted, header + len(role))
    return again if 0 <= again <= header + len(role) + _HEADER_END_CHARS else at


def owner_breaks(messages: Sequence[PromptMessage], spans: Sequence[Span | None]) -> list[tuple[int, str]]:
    """(first character, owner) in text order: from there to the next break, characters belong to that owner."""
    breaks: list[tuple[int, str]] = [(0, _gap_owner(messages, spans, 0))]
    for i, (message, span) in enumerate(zip(messages, spans, strict=True)):
        if span is None:
            continue
        breaks.extend(_segment_breaks(message, span))
        breaks.append((span[1], _gap_owner(messages, spans, i + 1, before=message)))
    return breaks


def _segment_breaks(message: PromptMessage, span: Span) -> Iterable[tuple[int, str]]:
    # A trimmed content starts later in the message than its first segment does.
    content = message.content
    trimmed = len(content) - len(content.lstrip()) if span[1] - span[0] < len(content) else 0
    at = span[0] - trimmed
    for segment in message.segments:
        if at + len(segment.text) > span[0] and at < span[1]:
            yield max(at, span[0]), segment.owner or TEMPLATE
        at += len(segment.text)


def _gap_owner(
    messages: Sequence[PromptMessage], spans: Sequence[Span | None], start: int, before: PromptMessage | None = None
) -> str:
    """Between two contents stand role markers and tool calls: the first message there that calls tools pays."""
    if before is not None and before.tool_calls:
        return before.owner or TEMPLATE
    for message, span in zip(messages[start:], spans[start:], strict=True):
        if span is not None:
            break
        if message.owner and (message.tool_calls or message.content):
            return message.owner
    return TEMPLATE


def charge(starts: Sequence[int], breaks: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Tokens per owner: a token is charged to the owner of its first character. `starts` must not decrease."""
    tally: dict[str, int] = {}
    places = [bisect_left(starts, first) for first, _ in breaks[1:]]
    for (_, owner), begin, end in zip(breaks, [0, *places], [*places, len(starts)], strict=True):
        if end > begin:
            tally[owner] = tally.get(owner, 0) + end - begin
    return tally
