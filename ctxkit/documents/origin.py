"""From a span of a document's text back to the place in the file.

A line ends at `\\n`, as for grep, git and wc: `\\r\\n` is one line end, a lone `\\r` is none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from ctxkit.documents.lines import line_starts

_WORD = re.compile(r"\w+")
_STRIDE = 4096  # chars between two known byte offsets: no lookup encodes more than this, however long the line


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span stands: 1-based lines (both included), half-open byte span, 1-based page or None."""

    start_line: int
    end_line: int
    start_byte: int
    end_byte: int
    page: int | None = None


class Origin(Protocol):
    """Maps a half-open char span of a document's text to its place."""

    def locate(self, start: int, end: int) -> Place: ...


class TextOrigin:
    """The text is the file (or stands for itself): lines and bytes are counted in it.

    encoding: codec that gives the file's bytes back, without the byte order mark.
    prefix_bytes: length of the byte order mark.
    """

    def __init__(self, text: str, *, encoding: str = "utf-8", prefix_bytes: int = 0) -> None:
        self.encoding = encoding
        self._text = text
        self._prefix = prefix_bytes
        self._plain = encoding == "utf-8" and text.isascii()

    def locate(self, start: int, end: int) -> Place:
        return Place(self.line(start), self.line(max(start, end - 1)), self.byte(start), self.byte(end))

    def line(self, offset: int) -> int:
        """1-based line of the char at `offset`."""
        return bisect_right(self._line_starts, offset)

    def byte(self, offset: int) -> int:
        """Byte offset in the file of the char at `offset`."""
        if self._plain:
            return self._prefix + offset
        mark = offset // _STRIDE
        tail = self._text[mark * _STRIDE : offset]
        return self._prefix + self._marks[mark] + len(tail.encode(self.encoding))

    @cached_property
    def _line_starts(self) -> list[int]:
        return line_starts(self._text)

    @cached_property
    def _marks(self) -> list[int]:
        marks = [0]
        for i in range(0, len(self._text), _STRIDE):
            marks.append(marks[-1] + len(self._text[i : i + _STRIDE].encode(self.encoding)))
        return marks


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """The text is a field of a record: every span of it stands at the record's line and bytes."""

    line: int
    start_byte: int
    end_byte: int

    def locate(self, start: int, end: int) -> Place:
        return Place(self.line, self.line, self.start_byte, self.end_byte)


class PagedOrigin:
    """The text is pages one after the other; lines are counted within the page.

    page_starts: char offset of each page's first char; the first page is number 1.
    """

    def __init__(self, text: str, page_starts: Sequence[int]) -> None:
        self._text = TextOrigin(text)
        self._page_starts = page_starts

    def locate(self, start: int, end: int) -> Place:
        page = bisect_right(self._page_starts, start)
        before = self._text.line(self._page_starts[page - 1]) - 1
        place = self._text.locate(start, end)
        return Place(place.start_line - before, place.end_line - before, place.start_byte, place.end_byte, page)


class AlignedOrigin:
    """The text was extracted from a source: anchors tie some of its chars to chars of the source, both ascending.

    A span begins at its first word and ends at its last; a word between two anchors is interpolated.
    Lines are the source's, bytes those of the extracted text.
    """

    def __init__(self, text: str, source: str, anchors: Sequence[tuple[int, int]]) -> None:
        self._raw = text
        self._text = TextOrigin(text)
        self._source = TextOrigin(source)
        ends = (len(text), max(0, len(source) - 1))
        self._anchors = [*anchors, ends] if anchors else [(0, 0), ends]
        self._keys = [offset for offset, _ in self._anchors]

    def locate(self, start: int, end: int) -> Place:
        words = [match.start() for match in _WORD.finditer(self._raw, start, end)] or [start]
        first, last = (self._source.line(self._in_source(offset)) for offset in (words[0], words[-1]))
        return Place(first, max(first, last), self._text.byte(start), self._text.byte(end))

    def _in_source(self, offset: int) -> int:
        i = bisect_right(self._keys, offset)
        if i == 0:
            return self._anchors[0][1]
        if i == len(self._keys):
            return self._anchors[-1][1]
        (text_low, source_low), (text_high, source_high) = self._anchors[i - 1], self._anchors[i]
        share = (offset - text_low) / (text_high - text_low)
        return source_low + int(share * (source_high - source_low))
