"""Tables (CSV, TSV, Markdown): the header, the first and last rows, and the rows that are asked for.

Columns of sentences lose words before rows go.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ctxkit.compression.sources.cut import Reader, Source
from ctxkit.compression.sources.pieces import Gap, Pieces, PieceSource, marker, slices
from ctxkit.compression.structure.thinned import Thinnable, ThinnedSource, words_in
from ctxkit.compression.text.pins import Pins, Span
from ctxkit.compression.text.score import ends_first, relevance
from ctxkit.compression.text.segment import Bounds, coarse, line_bounds
from ctxkit.compression.text.word_scores import Weigh, plain_scores
from ctxkit.compression.text.words import Words
from ctxkit.context.level import LevelRequest

FIDELITY = 0.85
_LEAST_ROWS = 4
_DELIMITERS = "\t,;|"
_LONGEST_CELL_CHARS = 200
_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*$", re.MULTILINE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_CLOCK = re.compile(r"\d\d:\d\d:\d\d")
_HEADER_SCORE = 3.0
_PROSE_CHARS, _PROSE_WORDS = 40, 6  # of a cell of a column of sentences, in the mean
_PINS = Pins()


def markdown_reader(weigh: Weigh = plain_scores, pins: Pins | None = _PINS) -> Reader:
    """Reads tables with a rule of dashes; what stands above it counts as its header."""

    def read(text: str, request: LevelRequest) -> Source | None:
        bounds = line_bounds(text, most=len(text))
        lines = slices(text, bounds)
        rule = next((i for i, line in enumerate(lines[:8]) if "|" in line and _RULE.match(line)), None)
        rows = 0 if rule is None else sum(line.lstrip().startswith("|") for line in lines[rule:])
        if rule is None or rule < 1 or rows < _LEAST_ROWS or rows < 0.9 * (len(lines) - rule):
            return None
        table = _Table(text, bounds, rule + 1, "| … {} more rows |", "|", weigh, pins)
        return table.source(request)

    return read


def delimited_reader(weigh: Weigh = plain_scores, pins: Pins | None = _PINS) -> Reader:
    """Reads rows of equally many cells, cells in quotes included."""

    def read(text: str, request: LevelRequest) -> Source | None:
        if _CLOCK.search(text, 0, text.find("\n") + 1):  # no header says the time: this is a log
            return None
        for delimiter in _DELIMITERS:
            bounds = _row_bounds(text, delimiter)
            if bounds is not None:
                return _Table(text, bounds, 1, "… {} more rows", delimiter, weigh, pins).source(request)
        return None

    return read


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


@dataclass(frozen=True)
class _Table:
    """A text in rows. header: how many of them always stay. label: of missing rows, with a place for how many."""

    text: str
    rows: Bounds
    header: int
    label: str
    delimiter: str
    weigh: Weigh
    pins: Pins | None

    def source(self, request: LevelRequest) -> Source | None:
        bounds = coarse(self.rows)
        count = len(bounds) - 1 - self.header
        if count < 2:
            return None
        asked = relevance(slices(self.text, bounds)[self.header :], request.question)
        values = [ends_first(i, count) + 1.2 * asked[i] for i in range(count)]
        scores = [_HEADER_SCORE] * self.header + values
        gap = _gap(self.text, self.rows, self.label.format)
        cells = self._prose_cells()
        words = words_in(self.text, bounds, self.pins, request.question) if cells else None
        if words is None:
            return PieceSource(Pieces(self.text, bounds, scores, gap, "table", FIDELITY), request.counter)
        worth = self.weigh([words], request.question)[0]
        spare = [(worth[word], (word,)) for word in self._spare(words, cells)]
        thin = Thinnable(self.text, bounds, scores, words, spare, gap, "table", FIDELITY)
        return ThinnedSource(thin, request.counter)

    def _prose_cells(self) -> list[Span]:
        """The insides of the cells of columns that hold sentences."""
        table = [self._cells(start, end) for start, end in pairwise(self.rows)][self.header :]
        columns: list[list[Span]] = [[] for _ in range(max(map(len, table), default=0))]
        for cells in table:
            for column, cell in zip(columns, cells, strict=False):
                column.append(cell)
        return sorted(cell for column in columns if self._is_prose(column) for cell in column)

    def _cells(self, start: int, end: int) -> list[Span]:
        """Char spans of the cells of a row, without their quotes."""
        spans, at = [], start
        while at <= end:
            match = _QUOTED.match(self.text, at, end)
            stop = match.end() if match else self.text.find(self.delimiter, at, end)
            stop = end if stop < 0 else stop
            spans.append((at + 1, stop - 1) if match else (at, stop))
            at = stop + 1
        return spans

    def _is_prose(self, column: Sequence[Span]) -> bool:
        cells = [self.text[start:end] for start, end in column]
        words = sum(cell.count(" ") + 1 for cell in cells)
        return sum(map(len, cells)) >= _PROSE_CHARS * len(cells) and words >= _PROSE_WORDS * len(cells)

    def _spare(self, words: Words, cells: Sequence[Span]) -> Iterator[int]:
        """Words inside these cells that are no pins and no grammar of the table."""
        for start, end in cells:
            first, last = bisect_left(words.starts, start), bisect_left(words.starts, end)
            for word in range(first, last):
                inside = words.starts[word] + len(words.proper[word]) <= end
                if inside and not words.pinned[word] and '"' not in words.proper[word]:
                    yield word


def _gap(text: str, rows: Bounds, label: Callable[[str], str]) -> Gap:
    def gap(start: int, end: int) -> str:
        return marker(text, start, end, label(f"{bisect_left(rows, end) - bisect_left(rows, start):,}"))

    return gap
