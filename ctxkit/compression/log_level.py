"""Logs: lines that differ only in numbers, times and ids are said once; errors and warnings stay."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence
from itertools import accumulate

from ctxkit.compression.cut import Source
from ctxkit.compression.pieces import Gap, Pieces, PieceSource, marker, slices
from ctxkit.compression.score import relevance
from ctxkit.compression.segment import line_bounds
from ctxkit.compression.text_level import omitted
from ctxkit.context.level import LevelRequest

FIDELITY = 0.95
_LEAST_LINES = 6
_SPARE = 0.05
_REPEATED = 0.002
_SEVERITY_CHARS = 80
_LOOKED_AT_CHARS = 1_000

_VARIABLE = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|\b0[xX][0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{6,}\b|\d+"
)
_STAMP = re.compile(r"\s*(?:\[?\d{4}-\d\d-\d\d|\[?\d\d:\d\d:\d\d|\[?\w{3} +\d+ \d\d:\d\d|\d{2}/\w{3}/\d{4})")
_SEVERITY = re.compile(r"\b(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\b")
_GRAVE = re.compile(
    r"\b(?:WARN|WARNING|ERROR|FATAL|CRITICAL|PANIC|FAILED|FAILURE|Traceback|panic|segfault|Caused by)\b"
    r"|\b(?:error|warning|fatal)\b\s*[:\[(]|(?:Error|Exception)\b|^\s+at \S+\(|^\s+File \"",
    re.MULTILINE,
)


def template(line: str) -> str:
    """The line with `#` for what varies.

    >>> template("12:03:04 GET /users/17 took 0x3f")
    '#:#:# GET /users/# took #'
    """
    return _VARIABLE.sub("#", line).strip()


def read_log(text: str, request: LevelRequest) -> Source | None:
    """Lines with times or severities, or of which most repeat a template."""
    bounds = line_bounds(text)
    lines = slices(text, bounds)
    if len(lines) < _LEAST_LINES:
        return None
    templates = [template(line) for line in lines]
    if not _is_log(lines, templates):
        return None
    scores, repeated = _scores(lines, templates, request.question)
    gap = _gap(text, bounds, repeated)
    return PieceSource(Pieces(text, bounds, scores, gap, "log", FIDELITY, spare=_SPARE), request.counter)


def _is_log(lines: Sequence[str], templates: Sequence[str]) -> bool:
    logged = sum(1 for line in lines if _STAMP.match(line) or _SEVERITY.search(line[:_SEVERITY_CHARS]))
    return logged >= 0.5 * len(lines) or len(set(templates)) <= 0.5 * len(lines)


def _scores(lines: Sequence[str], templates: Sequence[str], question: str) -> tuple[list[float], list[bool]]:
    """Value per token of each line, and which lines only repeat others."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, key in enumerate(templates):
        first.setdefault(key, index)
        last[key] = index
    frequency = Tally(templates)
    asked = relevance(lines, question)
    scores, repeated = [], []
    for index, key in enumerate(templates):
        opening, closing = first[key] == index, last[key] == index
        rarity = 1 / (1 + math.log2(frequency[key]))
        base = 0.4 + 0.4 * rarity if opening else 0.3 if closing else _REPEATED
        grave = bool(_GRAVE.search(lines[index][:_LOOKED_AT_CHARS]))
        base = max(base, 1.0 if opening else 0.35) if grave else base
        scores.append(base + 0.6 * asked[index])
        repeated.append(not (opening or closing or grave))
    return scores, repeated


def _gap(text: str, bounds: Sequence[int], repeated: Sequence[bool]) -> Gap:
    """Markers that tell repetitions from other lines."""
    repeats = list(accumulate(repeated, initial=0))

    def gap(start: int, end: int) -> str:
        first, behind = bisect_left(bounds, start), bisect_left(bounds, end)
        if repeats[behind] - repeats[first] == behind - first:
            count = text.count("\n", start, end) + (text[end - 1] != "\n")
            return marker(text, start, end, f"(×{count:,} similar line{'s' * (count > 1)})")
        return omitted(text, start, end)

    return gap
