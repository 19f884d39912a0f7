"""Where a text must not be cut: inside an extended grapheme cluster (Unicode UAX 29)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

import regex

_CLUSTER = regex.compile(r"\X")
_LINE = re.compile(r"[^\n]*\n?")

# Two characters that never belong to one cluster, whatever stands around them: a place to start looking from.
_PLAIN = r"[\x20-\x7e\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5]"
_CERTAIN = re.compile(rf"(?<=\n)|(?<={_PLAIN})(?={_PLAIN})")
_LOOK_BACK_CHARS = 256


def cluster_interiors(text: str) -> frozenset[int]:
    """Char offsets that lie between two chars of one cluster (the two chars of `\\r\\n` included)."""
    inside = {match.start() + 1 for match in re.finditer("\r\n", text)}
    if text.isascii():
        return frozenset(inside)
    for start, end in _line_spans(text):  # a line end always closes a cluster: lines are independent
        if not text[start:end].isascii():
            for cluster in _CLUSTER.finditer(text, start, end):
                inside.update(range(cluster.start() + 1, cluster.end()))
    return frozenset(inside)


def cluster_starts(text: str, start: int, end: int) -> list[int]:
    """Char offsets in [start, end] where `text` may be cut, its ends included. Reads little more than that range."""
    first = _certain_cut(text, start)
    clusters = takewhile(lambda cluster: cluster.start() <= end, _CLUSTER.finditer(text, first))
    cuts = [cluster.start() for cluster in clusters if cluster.start() >= start]
    return [*cuts, len(text)] if end >= len(text) else cuts


def _certain_cut(text: str, before: int) -> int:
    """An offset, at most `before`, that is certainly between two clusters."""
    begin, size = before, _LOOK_BACK_CHARS
    while begin > 0:
        begin, size = max(before - size, 0), size * 4
        cuts = [match.start() for match in _CERTAIN.finditer(text, begin, min(before + 1, len(text)))]
        if found := [cut for cut in cuts if cut <= before]:
            return found[-1]
    return 0


def _line_spans(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _LINE.finditer(text) if match.group())
