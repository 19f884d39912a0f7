"""Logs: what repeats is said once; errors and warnings stay.

Of lines that differ from an earlier one only in numbers, times and ids, first the words that both have and the time go,
then, under a smaller budget, the lines.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from ctxkit.compression.sources.cut import Source
from ctxkit.compression.sources.pieces import Gap, Pieces, PieceSource, marker, slices
from ctxkit.compression.structure.text_level import omitted
from ctxkit.compression.structure.thinned import Thinnable, ThinnedSource, words_in
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.score import ends_first, relevance
from ctxkit.compression.text.segment import line_bounds
from ctxkit.compression.text.word_scores import plain_scores
from ctxkit.compression.text.words import MARK, Words
from ctxkit.context.level import LevelRequest

FIDELITY = 0.95
_LEAST_LINES = 6
_SPARE = 0.05
_REPEATED = 0.06
_PINS = Pins()
_SEVERITY_CHARS = 80
_LONG_LINE_CHARS = 160
_LEAD = 8  # of so many words of a long line one always comes with it
_NATURAL = 1.0
_LOOKED_AT_CHARS = 1_000

_VARIABLE = re.compile(r"(?<![\w/])/\w[\w./-]*|\w+(?:[-.]\w+)*")
_DIGIT = re.compile(r"\d")
_TIME = re.compile(
    r"\[?\b(?:\d{4}-\d\d-\d\d|\d{1,2}/\w{3}/\d{4}|\w{3} +\d{1,2})[T :]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
    r"(?:Z\b| ?[+-]\d\d:?\d\d\b)?\]?|\[?\b\d\d:\d\d:\d\d(?:[.,]\d+)?\]?"
)
_STAMP = re.compile(r"\s*(?:\[?\d{4}-\d\d-\d\d|\[?\d\d:\d\d:\d\d|\[?\w{3} +\d+ \d\d:\d\d|\d{2}/\w{3}/\d{4})")
_SEVERITY = re.compile(r"\b(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\b")
_GRAVE = re.compile(
    r"\b(?:WARN|WARNING|ERROR|FATAL|CRITICAL|PANIC|FAILED|FAILURE|Traceback|panic|segfault|Caused by)\b"
    r"|\b(?:error|warning|fatal)\b\s*[:\[(]|(?:Error|Exception)\b|^\s+at \S+\(|^\s+File \"",
    re.MULTILINE,
)

_FRAME = re.compile(r"\s+(?:at \S+\(|File \")")


def template(line: str) -> str:
    """The line with `#` for what varies.

    >>> template("12:03:04 GET /users/17 took 0x3f")
    '#:#:# GET # took #'
    """
    return " ".join(_VARIABLE.sub(_varied, line).split())


def _varied(match: re.Match[str]) -> str:
    found = match.group()
    return "#" if found[0] == "/" or _DIGIT.search(found) else found


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
    words = words_in(text, bounds, _PINS, request.question)
    if words is None:
        return PieceSource(Pieces(text, bounds, scores, gap, "log", FIDELITY, spare=_SPARE), request.counter)
    spare = [*_said(text, bounds, words, templates, repeated), *_wordy(bounds, words, repeated, request.question)]
    plain = replace(words, pinned=[False] * len(words))  # what is left out of a repeated line leaves no mark
    thin = Thinnable(text, bounds, scores, plain, spare, gap, "log", FIDELITY, natural=_NATURAL)
    return ThinnedSource(thin, request.counter)


def _said(
    text: str, bounds: Sequence[int], words: Words, templates: Sequence[str], repeated: Sequence[bool]
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Of repeated lines and frames of a stack the time and what the first line of their template says for all, too."""
    places = [bisect_left(words.starts, bound) for bound in bounds]
    lines = [range(start, end) for start, end in pairwise(places)]
    models: dict[str, range] = {}
    for own, key in zip(lines, templates, strict=True):
        models.setdefault(key, own)
    varying = _varying(words, lines, templates, models)
    for line, (own, key) in enumerate(zip(lines, templates, strict=True)):
        model = models[key]
        is_frame = _FRAME.match(text, bounds[line]) is not None
        if own == model or not (repeated[line] or is_frame):
            continue
        times = [match.span() for match in _TIME.finditer(text, bounds[line], bounds[line + 1])]
        alike = _alike(words, own, model, varying[key])
        spare = (i for i in own if i in alike or any(start <= words.starts[i] < end for start, end in times))
        yield ends_first(line, len(templates)) + (0.0 if repeated[line] else _NATURAL), tuple(spare)


def _varying(
    words: Words, lines: Sequence[range], templates: Sequence[str], models: dict[str, range]
) -> dict[str, set[int]]:
    """Of each template the places, in words of a line, at which not all of its lines say the same."""
    varying: dict[str, set[int]] = {key: set() for key in models}
    for own, key in zip(lines, templates, strict=True):
        model = models[key]
        if len(own) == len(model):
            pairs = enumerate(zip(own, model, strict=True))
            varying[key].update(place for place, (i, other) in pairs if words.proper[i] != words.proper[other])
    return varying


def _alike(words: Words, own: range, model: range, varying: set[int]) -> set[int]:
    """Words of a line that all lines of the template have, in their place where this one has as many as the first.

    A value that varies stays also where it is the first line's: a reader takes what is left for all that varies.
    """
    if len(own) == len(model):
        return {i for place, i in enumerate(own) if place not in varying}
    said = {words.proper[other] for other in model}
    return {i for i in own if words.proper[i] in said and not _DIGIT.search(words.proper[i])}


def _wordy(
    bounds: Sequence[int], words: Words, repeated: Sequence[bool], question: str
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Of long lines that repeat nothing the words that are no facts, less the best; they go after what is repeated."""
    long = [i for i, done in enumerate(repeated) if not done and bounds[i + 1] - bounds[i] > _LONG_LINE_CHARS]
    scores = plain_scores([words], question)[0] if long else []
    for line in long:
        own = range(bisect_left(words.starts, bounds[line]), bisect_left(words.starts, bounds[line + 1]))
        plain = sorted((i for i in own if not words.pinned[i]), key=lambda i: (-scores[i], i))
        for i in plain[len(own) // _LEAD :]:
            yield _NATURAL + scores[i], (i,)


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
        repeated.append(not (opening or grave))
    return scores, repeated


def _gap(text: str, bounds: Sequence[int], repeated: Sequence[bool]) -> Gap:
    """Markers that tell repetitions from other lines."""
    repeats = list(accumulate(repeated, initial=0))

    def gap(start: int, end: int) -> str:
        first, behind = bisect_left(bounds, start), bisect_left(bounds, end)
        if repeats[behind] - repeats[first] == behind - first:
            count = text.count("\n", start, end) + (text[end - 1] != "\n")
            return marker(text, start, end, f"(×{count:,} similar lines)" if count > 1 else MARK)
        return omitted(text, start, end)

    return gap
