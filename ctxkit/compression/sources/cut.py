"""Cut: one shorter rendering of one text, and where each of its characters comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ctxkit.context.level import Handle, LevelRequest, content_digest
from ctxkit.context.part import Part

_MOST_HANDLES = 3


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of an output text. start: char offset in the source that it was sliced from, None for a marker."""

    text: str
    start: int | None

    @property
    def end(self) -> int:
        """Char offset behind it in the source; 0 for a marker."""
        return 0 if self.start is None else self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Cut:
    """One rendering of a text.

    fragments: the output in order, slices of the source and markers; joined they are `text`.
    tokens: of `text`, by the target's counter. value: share of the text's value that is kept, in [0, 1).
    """

    text: str
    tokens: int
    value: float
    fragments: tuple[Fragment, ...]

    def place_of(self, offset: int) -> int:
        """Char offset in the output of a source offset, or of the marker that it went into."""
        at = before = 0
        for fragment in self.fragments:
            if fragment.start is not None:
                if offset <= fragment.end:
                    return at + offset - fragment.start if offset >= fragment.start else before
                before = at + len(fragment.text)
            at += len(fragment.text)
        return at

    def gaps(self, source_length: int) -> list[tuple[int, int]]:
        """Half-open char spans of the source that no fragment holds."""
        spans, at = [], 0
        for fragment in self.fragments:
            if fragment.start is not None:
                spans.append((at, fragment.start))
                at = fragment.end
        return [(start, end) for start, end in [*spans, (at, source_length)] if start < end]


class Source(Protocol):
    """A text that can be rendered in fewer tokens.

    kind: what it was taken for. ceiling: tokens of the largest rendering that loses nothing. natural: tokens of the
    rendering that drops only what this kind of text can spare, None where there is no such point.
    """

    @property
    def kind(self) -> str: ...

    @property
    def ceiling(self) -> int: ...

    @property
    def natural(self) -> int | None: ...

    @property
    def smallest(self) -> Cut | None: ...

    def at(self, tokens: int) -> Cut | None:
        """The fullest rendering in at most `tokens` tokens; None where nothing fits."""
        ...


Reader = Callable[[str, LevelRequest], Source | None]
"""Makes a Source of a text of its kind; None where the text is of another kind or cannot be reduced."""


def first_of(readers: Sequence[Reader]) -> Reader:
    """The first reader that takes the text."""

    def read(text: str, request: LevelRequest) -> Source | None:
        return next((source for reader in readers if (source := reader(text, request)) is not None), None)

    return read


def handles_of(part: Part, cut: Cut | None) -> tuple[Handle, ...]:
    """Handles of what a cut of the part's content leaves out: the missing lines, or all where that is many places."""
    gaps = [] if cut is None else cut.gaps(len(part.content))
    if not 0 < len(gaps) <= _MOST_HANDLES:
        return (Handle.of_whole(part),)
    digest, total = content_digest(part.content), part.content.count("\n") + 1
    return tuple(Handle(part.id, *_lines(part.content, *gap), total, digest) for gap in gaps)


def _lines(text: str, start: int, end: int) -> tuple[int, int]:
    """1-based first and last line of a char span."""
    first = text.count("\n", 0, start) + 1
    return first, first + text.count("\n", start, end - 1)
