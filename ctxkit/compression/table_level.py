"""Tables (CSV, TSV, Markdown, JSON lines): the header, the first and last rows, and the rows that are asked for."""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from ctxkit.compression.cut import Source
from ctxkit.compression.json_tree import is_json
from ctxkit.compression.pieces import Gap, Pieces, PieceSource, marker, slices
from ctxkit.compression.score import ends_first, relevance
from ctxkit.compression.segment import Bounds, coarse, line_bounds
from ctxkit.context.level import LevelRequest

FIDELITY = 0.85
_LEAST_ROWS = 4
_DELIMITERS = "\t,;|"
_LONGEST_CELL_CHARS = 200
_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*$", re.MULTILINE)
_HEADER_SCORE = 3.0


def read_markdown_table(text: str, request: LevelRequest) -> Source | None:
    """A table with a rule of dashes; what stands above it counts as its header."""
    bounds = line_bounds(text, most=len(text))
    lines = slices(text, bounds)
    rule = next((i for i, line in enumerate(lines[:8]) if "|" in line and _RULE.match(line)), None)
    rows = 0 if rule is None else sum(line.lstrip().startswith("|") for line in lines[rule:])
    if rule is None or rule < 1 or rows < _LEAST_ROWS or rows < 0.9 * (len(lines) - rule):
        return None
    return _table(text, bounds, request, header=rule + 1, label="| … {} more rows |")


def read_delimited(text: str, request: LevelRequest) -> Source | None:
    """Rows of equally many cells, cells in quotes included."""
    for delimiter in _DELIMITERS:
        bounds = _row_bounds(text, delimiter)
        if bounds is not None:
            return _table(text, bounds, request, header=1, label="… {} more rows")
    return None


def read_json_lines(text: str, request: LevelRequest) -> Source | None:
    """A JSON object or array on each line; stays one."""
    bounds = line_bounds(text, most=len(text))
    lines = slices(text, bounds)
    if len(lines) < 2 or not all(line[:1] in ("{", "[") for line in lines) or not all(map(is_json, lines)):
        return None
    return _table(text, bounds, request, kind="json lines", header=0, label='{{"…":"{} more rows"}}')


def _row_bounds(text: str, delimiter: str) -> Bounds | None:
    """Offsets of the rows, None where the text is no table of this delimiter."""
    if text[:4_000].count(delimiter) < _LEAST_ROWS or "\r" in text.replace("\r\n", ""):
        return None
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    bounds, widths = [0], []
    reader = csv.reader((text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)), delimiter=delimiter)
    try:
        for row in reader:
            widths += [len(row)] if row else []
            if len(widths) == 1 and (len(row) < 2 or max(map(len, row)) > _LONGEST_CELL_CHARS):
                return None
            if row and len(row) != widths[0]:
                return None
            bounds.append(starts[reader.line_num] if reader.line_num < len(starts) else len(text))
    except csv.Error:
        return None
    return _checked(text, bounds, widths)


def _checked(text: str, bounds: Bounds, widths: Sequence[int]) -> Bounds | None:
    """Two columns with a comma now and then may be prose."""
    if len(widths) < _LEAST_ROWS or (widths[0] == 2 and len(widths) < 2 * _LEAST_ROWS):
        return None
    return sorted({*bounds, len(text)})


def _table(
    text: str, rows: Bounds, request: LevelRequest, *, header: int, label: str, kind: str = "table"
) -> Source | None:
    bounds = coarse(rows)
    count = len(bounds) - 1 - header
    if count < 2:
        return None
    asked = relevance(slices(text, bounds)[header:], request.question)
    values = [ends_first(i, count) + 1.2 * asked[i] for i in range(count)]
    scores = [_HEADER_SCORE] * header + values
    pieces = Pieces(text, bounds, scores, _gap(text, rows, label.format), kind, FIDELITY)
    return PieceSource(pieces, request.counter)


def _gap(text: str, rows: Bounds, label: Callable[[str], str]) -> Gap:
    def gap(start: int, end: int) -> str:
        return marker(text, start, end, label(f"{bisect_left(rows, end) - bisect_left(rows, start):,}"))

    return gap
