"""ExtractiveCompressor: the sentences and lines that matter for the question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctxkit.compression.sources.cut import Reader, Source, first_of
from ctxkit.compression.sources.pieces import Pieces, PieceSource, marker, slices
from ctxkit.compression.structure.json_level import either_json_reader, json_reader
from ctxkit.compression.text.score import importance
from ctxkit.compression.text.segment import divided, sentence_bounds
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter

GAP = "[...]"
"""Stands for what is left out."""

FIDELITY = 0.9
_GAP_SCORE = 1e-3
_LEAN = 0.8


@dataclass(frozen=True)
class ExtractiveCompressor(TextCompressor):
    """Keeps whole sentences, lines and short code fences, best first by BM25 against the question and by their place.

    Without a question: by place, facts (numbers, names) and how common their words are in the text. There is one
    ranking, and every smaller level is a prefix of it; the output is slices of the source in order, gaps marked by
    "[...]" (`extract` gives the map). A sentence longer than 240 characters may be cut at white space. JSON is sampled,
    and stays JSON.
    """

    @property
    def name(self) -> str:
        return "extractive"

    @property
    def arguments(self) -> Reader:
        return json_reader(lean=_LEAN, fidelity=FIDELITY, keep_fields=True)

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        read = first_of((either_json_reader(lean=_LEAN, fidelity=FIDELITY), extract))
        return [read(text, request) for text in texts]


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
