"""Where a block may be cut, best places first.

Each kind of block has its ladder of cut rules: blank lines, then sentences for prose or rows for tables, and so on down
to words. A span that no rule can cut any more is divided evenly between grapheme clusters. The rules only ever propose
offsets; nothing is copied or changed, so every piece is an exact slice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from ctxkit.documents.document import Kind

CutRule = Callable[[str, int, int], Iterable[int]]
"""(text, start, end) -> char offsets at which a new piece may begin."""

_BLANK = re.compile(r"\n(?:[^\S\n]*\n)+")
_LINE = re.compile(r"\n+")
_SENTENCE = re.compile(
    r"(?:(?<=[.!?…])|(?<=[.!?…][\"')\]*_”’»`]))"
    r"(?<!\b\d\.)(?<!\b\d\d\.)(?<!\b[A-Z]\.)(?<!\bal\.)(?<!\bFig\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)"
    r"\s+(?![\sa-z,;:)\]])"  # a lower-case follower: an abbreviation
    r"|(?<=[。！？।॥])\s*(?!\s)"
)
_CLAUSE = re.compile(r"(?<=[,;:)\]])\s+|\s(?=[—–(\[-]\s?\S)|(?<=[，、；：])")
_WORD = re.compile(r"\s+")
_ITEM = re.compile(r"^([^\S\n]*)(?:[-*+•]|\d{1,9}[.)])[^\S\n]", re.MULTILINE)
_FULL_LINE = re.compile(r"^([^\S\n]*)(?=[^\s)\]}])", re.MULTILINE)


def _after(pattern: re.Pattern[str]) -> CutRule:
    def cuts(text: str, start: int, end: int) -> Iterator[int]:
        return (match.end() for match in pattern.finditer(text, start, end))

    return cuts


def _shallowest(pattern: re.Pattern[str]) -> CutRule:
    """Cuts before the least indented of the lines that match, the first line of the span left out."""

    def cuts(text: str, start: int, end: int) -> list[int]:
        below = text.find("\n", start, end) + 1
        if not below:
            return []
        found = [(len(match[1]), match.start()) for match in pattern.finditer(text, below, end)]
        least = min((indent for indent, _ in found), default=0)
        return [position for indent, position in found if indent == least]

    return cuts


_blank, _lines, _sentences, _clauses, _words = map(_after, (_BLANK, _LINE, _SENTENCE, _CLAUSE, _WORD))
_outer_lines, _outer_items = map(_shallowest, (_FULL_LINE, _ITEM))

_PROSE = (_blank, _sentences, _lines, _clauses, _words)
LADDERS: dict[Kind, tuple[CutRule, ...]] = {
    "paragraph": _PROSE,
    "heading": _PROSE,
    "list": (_outer_items, _outer_items, _blank, _sentences, _lines, _clauses, _words),
    "table": (_lines, _clauses, _words),
    "code": (_blank, _outer_lines, _lines, _clauses, _words),
    "lines": (_blank, _lines, _sentences, _clauses, _words),
}
"""Cut rules of each kind of block, best first."""


def trim(text: str, start: int, end: int, inside: frozenset[int]) -> tuple[int, int]:
    """The span without white space around it; the indentation of a first line stays, up to 40 columns.

    An edge that would fall into a grapheme cluster (`inside`) moves outwards.
    """
    piece = text[start:end]
    first = start + len(piece) - len(piece.lstrip())
    last = start + len(piece.rstrip())
    if first >= last:
        return start, start
    line = text.rfind("\n", start, first) + 1
    opens_line = line > 0 or start == 0 or text[start - 1] == "\n"
    line = line or start
    if opens_line and first - line <= 40:
        first = line
    while first in inside:
        first -= 1
    while last in inside:
        last += 1
    return first, last


def even_cuts(start: int, end: int, parts: int, inside: frozenset[int]) -> list[int]:
    """Offsets that divide the span into about `parts` pieces of equal chars; none where it is a single cluster."""
    step = max(1, (end - start) // parts)
    cuts: list[int] = []
    for target in range(start + step, end, step):
        while target in inside:
            target += 1
        if target < end and (not cuts or target > cuts[-1]):
            cuts.append(target)
    return cuts or next(([p] for p in range(start + 1, end) if p not in inside), [])
