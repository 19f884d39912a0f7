"""Lines and paragraphs as char spans. A line ends at `\\n` and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NEWLINE = re.compile("\n")


def line_starts(text: str) -> list[int]:
    """Char offset of the first char of each line; a `\\n` at the very end opens no further line."""
    starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]
    if len(starts) > 1 and starts[-1] == len(text):
        starts.pop()
    return starts


def line_spans(text: str) -> list[tuple[int, int]]:
    """Half-open char span of each line, its line end included."""
    starts = line_starts(text)
    return list(zip(starts, [*starts[1:], len(text)], strict=True)) if text else []


def paragraphs(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Spans of the runs of lines in `text[start:end]` that hold more than white space; blank lines are left out."""
    stop = len(text) if end is None else end
    begin = position = start
    while position < stop:
        newline = text.find("\n", position, stop)
        after = stop if newline < 0 else newline + 1
        if text[position:after].isspace():
            if begin < position:
                yield begin, position
            begin = after
        position = after
    if begin < stop:
        yield begin, stop
