"""Source: what a chain reads, as one text that knows where each of its characters came from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ctxkit.compression.text.segment import sentence_bounds
from ctxkit.context.chat.conversation import conversation
from ctxkit.context.group import identified
from ctxkit.context.part import Part, SupportsPart
from ctxkit.protocols import ChatMessage

SourceLike = str | Sequence[Part | SupportsPart] | Sequence[ChatMessage]
"""What can be read: a text, Parts (or search hits), or chat messages in OpenAI's form."""

WHOLE = "source"
"""The id of a source that was given as one text."""


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open, in characters of the content of the Part `source`, or of the text itself where one was given."""

    source: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one worker reads.

    number: from 1, in the order of the source. start, end: half-open, in characters of the whole text, in which Parts
    stand one after the other with who said them. spans: the same, by Part. tokens: of the worker's counter.
    """

    number: int
    start: int
    end: int
    spans: tuple[Span, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Section:
    """One Part in the text. label: who speaks, or the title; it stands before the content and is no part of it.

    start: where the label begins. begin, end: the content, half-open, in characters of the whole text.
    """

    id: str
    label: str
    start: int
    begin: int
    end: int


@dataclass(frozen=True)
class Source:
    """text: the Parts' contents with their labels, in order. unread: what of the Parts no text can say."""

    text: str
    sections: tuple[Section, ...]
    unread: tuple[str, ...] = ()

    @cached_property
    def bounds(self) -> list[int]:
        """Offsets at which a sentence, a line or a Part begins, and the end of the text; rising."""
        found: set[int] = {0, len(self.text)}
        for section in self.sections:
            inner = sentence_bounds(self.text[section.begin : section.end])
            found.add(section.start)
            found.update(section.begin + at for at in inner[1:-1])
        return sorted(found)

    def spans(self, start: int, end: int) -> tuple[Span, ...]:
        """Where the characters [start, end) of the text came from; labels came from nowhere."""
        first = max(0, bisect_right(self._starts, start) - 1)
        found: list[Span] = []
        for section in self.sections[first:]:
            if section.start >= end:
                break
            low, high = max(start, section.begin), min(end, section.end)
            if low < high:
                found.append(Span(section.id, low - section.begin, high - section.begin))
        return tuple(found)

    def spans_words(self, start: int, end: int) -> bool:
        """Whether any content that is not white space stands between two offsets."""
        return any(self.content(span).strip() for span in self.spans(start, end))

    def clipped(self, start: int, end: int) -> tuple[int, int] | None:
        """The offsets without labels at the edges; None where there are only labels between them."""
        spans = self.spans(start, end)
        if not spans:
            return None
        first, last = spans[0], spans[-1]
        return self.begin(first.source) + first.start, self.begin(last.source) + last.end

    def content(self, span: Span) -> str:
        """The characters of a span."""
        begin = self.begin(span.source)
        return self.text[begin + span.start : begin + span.end]

    def begin(self, name: str) -> int:
        """The offset at which the content of a Part begins."""
        return self._begins[name]

    def label_at(self, offset: int) -> str:
        """The label of the Part that the offset is in."""
        return self.sections[max(0, bisect_right(self._starts, offset) - 1)].label

    @cached_property
    def _begins(self) -> dict[str, int]:
        return {section.id: section.begin for section in self.sections}

    @cached_property
    def _starts(self) -> list[int]:
        return [section.start for section in self.sections]


def read_source(given: SourceLike) -> Source:
    """Raises ValueError for a source without a word and for what is none, PartError for Parts of one id."""
    if isinstance(given, str):
        source = Source(given, (Section(WHOLE, "", 0, 0, len(given)),))
    else:
        source = _joined(_parts(given))
    if not any(source.text[one.begin : one.end].strip() for one in source.sections):
        raise ValueError("`source` has no text to read")
    return source


def _parts(given: object) -> tuple[Part, ...]:
    if not isinstance(given, Iterable):
        raise ValueError(f"`source` must be a str, Parts or chat messages, got {type(given).__name__}")
    items = list(given)
    if items and all(isinstance(item, Mapping) for item in items):
        return identified(conversation(items).parts)
    return identified(items)


def _joined(parts: Sequence[Part]) -> Source:
    """Turns follow each other line by line, other Parts after a blank line."""
    pieces: list[str] = []
    sections: list[Section] = []
    at = 0
    for number, part in enumerate(parts):
        label = _label(part)
        close = part.kind == "turn" and number > 0 and parts[number - 1].kind == "turn"
        gap = "" if number == 0 else "\n" if close else "\n\n"
        start = at + len(gap)
        begin = start + len(label)
        at = begin + len(part.content)
        pieces += [gap, label, part.content]
        sections.append(Section(part.id, label.strip().removesuffix(":"), start, begin, at))
    unread = tuple(part.id for part in parts if part.attachments)
    return Source("".join(pieces), tuple(sections), unread)


def _label(part: Part) -> str:
    if part.kind == "turn":
        return f"{part.sender or part.role}: "
    if part.tool_calls:
        functions = [call.get("function") or {} for call in part.tool_calls]
        called = ", ".join(f"{one.get('name', '')}({one.get('arguments', '')})" for one in functions)
        return f"{part.role} calls {called}\n"
    if part.kind == "tool_result":
        return "tool: "
    return f"{part.title}\n" if part.title else ""
