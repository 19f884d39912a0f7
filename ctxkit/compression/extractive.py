"""ExtractiveCompressor: the sentences and lines that matter for the question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ctxkit.compression.counted import TotalCounter
from ctxkit.compression.cut import Source, first_of
from ctxkit.compression.json_level import json_reader
from ctxkit.compression.ladder import Ladder
from ctxkit.compression.pieces import Pieces, PieceSource, marker, slices
from ctxkit.compression.score import importance
from ctxkit.compression.segment import divided, sentence_bounds
from ctxkit.compression.table_level import read_json_lines
from ctxkit.context.group import Group
from ctxkit.context.level import Level, LevelRequest
from ctxkit.protocols import Counter

GAP = "[...]"
"""Stands for what is left out."""

FIDELITY = 0.9
_GAP_SCORE = 1e-3


@dataclass(frozen=True)
class ExtractiveCompressor:
    """Keeps whole sentences, lines and short code fences, best first by BM25 against the question and by their place.

    Without a question: by place, facts (numbers, names) and how common their words are in the text. There is one
    ranking, and every smaller level is a prefix of it; the output is slices of the source in order, gaps marked by
    "[...]" (`extract` gives the map). A sentence longer than 240 characters may be cut at white space. JSON is sampled,
    and stays JSON.

    least_tokens: the smallest size of a group that is aimed at.
    """

    least_tokens: int = 48

    def __post_init__(self) -> None:
        if self.least_tokens < 1:
            raise ValueError(f"`least_tokens` must be at least 1, got {self.least_tokens!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        request = replace(request, counter=TotalCounter(request.counter))
        contents = first_of((json_reader(lean=0.8, fidelity=FIDELITY), read_json_lines, extract))
        arguments = json_reader(lean=0.8, fidelity=FIDELITY, keep_fields=True)
        return Ladder("extractive", group, request, contents, arguments, self.least_tokens).levels()


def extract(text: str, request: LevelRequest) -> Source | None:
    """A text as ranked sentences and lines; None for the empty one.

    `extract(text, request).at(tokens).fragments` says of each piece of the output where in the source it begins.
    """
    return by_sentence(text, request.counter, lambda segments: importance(segments, request.question))


def by_sentence(
    text: str,
    counter: Counter,
    score: Callable[[Sequence[str]], Sequence[float]],
    *,
    fidelity: float = FIDELITY,
) -> Source | None:
    """A text whose sentences and lines are ranked by `score`; None for the empty one.

    score: value per token of each, above 0. fidelity: value of all of them.
    """
    bounds, divisible = divided(text, sentence_bounds(text))
    if len(bounds) < 2:
        return None
    segments = slices(text, bounds)
    scores = [
        _GAP_SCORE if part.strip() == GAP else value for part, value in zip(segments, score(segments), strict=True)
    ]

    def gap(start: int, end: int) -> str:
        return marker(text, start, end, GAP)

    return PieceSource(Pieces(text, bounds, scores, gap, "text", fidelity, divisible), counter)
