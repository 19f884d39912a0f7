"""Plain text: head and tail, by lines."""

from __future__ import annotations

from ctxkit.compression.sources.cut import Source
from ctxkit.compression.sources.pieces import Pieces, PieceSource, marker, slices
from ctxkit.compression.text.score import ends_first, relevance
from ctxkit.compression.text.segment import divided, line_bounds
from ctxkit.context.level import LevelRequest

FIDELITY = 0.75
"""Value of all lines, ranked by nothing but their place."""


def omitted(text: str, start: int, end: int) -> str:
    """A marker that counts what is missing: lines, or chars where it is less than a line.

    >>> omitted("a\\nb\\nc\\n", 2, 4)
    '[… 1 line omitted]\\n'
    """
    lines = text.count("\n", start, end)
    if lines or start == 0 or text[start - 1] == "\n":
        lines += end == len(text) and text[end - 1] != "\n"
    what = f"{lines:,} line{'s' * (lines > 1)}" if lines else f"{end - start:,} chars"
    return marker(text, start, end, f"[… {what} omitted]")


def read_text(text: str, request: LevelRequest) -> Source | None:
    """Any text that is not empty. Lines that match the question are worth more than their place."""
    bounds, divisible = divided(text, line_bounds(text))
    count = len(bounds) - 1
    if count < 1:
        return None
    asked = relevance(slices(text, bounds), request.question)
    scores = [0.7 * ends_first(i, count) + 0.3 * asked[i] for i in range(count)]

    def gap(start: int, end: int) -> str:
        return omitted(text, start, end)

    return PieceSource(Pieces(text, bounds, scores, gap, "text", FIDELITY, divisible), request.counter)
