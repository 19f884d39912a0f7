"""Segmenter: char offsets at which a text may be cut. Never inside a grapheme cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import regex

MOST_PIECES = 100_000
"""A text of more pieces is cut into blocks of pieces: memory and time stay bounded."""

LONGEST_PIECE_CHARS = 240
_SENTENCE_LINE_CHARS = 120
_FENCE_CHARS = 1_200
_SOFT_WRAP_CHARS = 40

_LINE_END = re.compile(r"\n\s*")
_CLUSTER = regex.compile(r"\X")
_NOT_INSIDE = r"(?![\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}])"
_SENTENCE_END = regex.compile(
    r"(?<=[.!?…।॥؟۔][\p{Pe}\p{Pf}\"']{0,2})(?<!\b(?:\p{L}|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|Fig|No|Nr|al|cf|approx)\.)\s+"
    rf"{_NOT_INSIDE}(?!\p{{Ll}})|(?<=[。！？｡][\p{{Pe}}\p{{Pf}}]{{0,2}}){_NOT_INSIDE}(?![\p{{Pe}}\p{{Pf}}。！？｡])"
)
_ENDED = regex.compile(r"[.!?…।॥؟۔。！？｡][\p{Pe}\p{Pf}\"']{0,2}$")
_FENCE = re.compile(r"[ \t]*(```|~~~)")

Bounds = list[int]
"""Offsets 0 = b[0] < b[1] < ... < b[n] = len(text): piece i is text[b[i]:b[i + 1]]. [0] for the empty text."""


def line_bounds(text: str, most: int = MOST_PIECES) -> Bounds:
    """Lines, at most `most` blocks of them; blank ones belong to the line before them."""
    bounds = [0] if text else []
    for match in _LINE_END.finditer(text):
        end = match.start() + match.group().rindex("\n") + 1
        if match.end() < len(text) and not text[:end].isspace():
            bounds.append(end)
    return coarse([*bounds, len(text)], most)


def coarse(bounds: Bounds, most: int = MOST_PIECES) -> Bounds:
    """At most `most` pieces, by joining neighbours."""
    step = -(-len(bounds) // max(most, 1))
    return bounds if step <= 1 else [*bounds[:-1:step], bounds[-1]]


def sentence_bounds(text: str) -> Bounds:
    """Sentences of long lines, short lines whole, soft-wrapped lines joined, small code fences whole."""
    bounds: Bounds = []
    for start, end, fenced in _blocks(text, line_bounds(text)):
        bounds.append(start)
        if not fenced and end - start > _SENTENCE_LINE_CHARS:
            cuts = (match.end() for match in _SENTENCE_END.finditer(text, start, end))
            bounds.extend(cut for cut in cuts if start < cut < end)
    return coarse([*bounds, len(text)])


def sentence_ends(text: str) -> list[int]:
    """Offsets behind each whole sentence and each line, rising; behind the last only where it ends as a sentence does.

    >>> sentence_ends("It rains. It pours. It st")
    [9, 19]
    """
    ends = {match.start() for match in _SENTENCE_END.finditer(text)} | {
        match.start() for match in _LINE_END.finditer(text)
    }
    if _ENDED.search(text):
        ends.add(len(text))
    return sorted(ends - {0})


def divided(text: str, bounds: Bounds, longest: int = LONGEST_PIECE_CHARS) -> tuple[Bounds, list[bool]]:
    """The pieces, with long ones cut at white space or between clusters; and which ones came of that."""
    finer: Bounds = []
    flags: list[bool] = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        cuts = [start] if end - start <= longest else [start, *_long_cuts(text, start, end, longest)]
        finer.extend(cuts)
        flags.extend([end - start > longest] * len(cuts))
    merged = coarse([*finer, len(text)])
    return (merged, flags) if len(merged) == len(finer) + 1 else (merged, [True] * (len(merged) - 1))


def cut_points(text: str, start: int, end: int) -> list[int]:
    """Offsets inside the span before which it may be cut: before white space, or any cluster where there is none."""
    points = [point for point in _clusters(text, start, end) if start < point < end]
    return [point for point in points if text[point].isspace()] or points


def _long_cuts(text: str, start: int, end: int, longest: int) -> Iterator[int]:
    """Cuts of a span, each at most about `longest` chars behind the one before."""
    space = None
    last = start
    for point in _clusters(text, start, end):
        if point - last >= longest:
            last, space = space or point, None
            yield last
        elif point > last and text[point].isspace():
            space = point


def _clusters(text: str, start: int, end: int) -> Iterator[int]:
    """Offsets at which grapheme clusters begin."""
    if text.isascii() and text.find("\r", start, end) < 0:
        return iter(range(start, end))
    return (match.start() for match in _CLUSTER.finditer(text, start, end))


def _blocks(text: str, bounds: Bounds) -> Iterator[tuple[int, int, bool]]:
    """(start, end, is a fence) of units that are not cut, or only at the end of a sentence."""
    at, last = 0, len(bounds) - 1
    while at < last:
        fence = _fence_end(text, bounds, at)
        stop = fence or at + 1
        while fence is None and stop < last and _soft_wrapped(text, *bounds[stop - 1 : stop + 2]):
            stop += 1
        yield bounds[at], bounds[stop], fence is not None
        at = stop


def _fence_end(text: str, bounds: Sequence[int], at: int) -> int | None:
    """Piece behind the code fence that opens at piece `at`; None where none does, or where it is a long one."""
    opening = _FENCE.match(text, bounds[at], bounds[at + 1])
    if opening is None:
        return None
    for piece in range(at + 1, len(bounds) - 1):
        if bounds[piece + 1] - bounds[at] > _FENCE_CHARS:
            return None
        closing = _FENCE.match(text, bounds[piece], bounds[piece + 1])
        if closing is not None and closing[1] == opening[1]:
            return piece + 1
    return None


def _soft_wrapped(text: str, start: int, middle: int, end: int) -> bool:
    """Whether the line break at `middle` stands inside a sentence."""
    line = text[start:middle]
    return (
        middle - start >= _SOFT_WRAP_CHARS
        and line.count("\n") == 1
        and line.rstrip("\r\n ")[-1:].isalnum() | line.rstrip("\r\n ").endswith((",", ";"))
        and text[middle].islower()
        and end - middle > 1
    )
