"""PieceSource: a text as scored slices; what is left out becomes a marker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ctxkit.compression.sources.cut import Cut, Fragment
from ctxkit.compression.sources.ranked import RankedSource
from ctxkit.compression.text.segment import Bounds, cut_points
from ctxkit.protocols import Counter

Gap = Callable[[int, int], str]
"""What stands in place of the half-open char span of the source that is left out."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text, cut.

    bounds: char offsets; piece i is text[bounds[i]:bounds[i + 1]].
    scores: value per token of each piece, above 0. gap: writes the markers.
    divisible: which pieces may be cut at a word; empty for none.
    spare: pieces that score less are what this kind of text can do without.
    """

    text: str
    bounds: Bounds
    scores: Sequence[float]
    gap: Gap
    kind: str
    fidelity: float
    divisible: Sequence[bool] = ()
    spare: float | None = None

    def texts(self) -> list[str]:
        return slices(self.text, self.bounds)


def slices(text: str, bounds: Bounds) -> list[str]:
    return [text[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def marker(text: str, start: int, end: int, label: str) -> str:
    """`label`, set off from what is kept on its sides: on a line of its own where whole lines are left out."""
    before = "" if start == 0 or text[start - 1].isspace() else " "
    after = "\n" if text[end - 1] == "\n" else " " if end < len(text) and not text[end].isspace() else ""
    return f"{before}{label}{after}"


class PieceSource(RankedSource):
    """Keeps the best pieces, in the order of the source."""

    def __init__(self, pieces: Pieces, counter: Counter) -> None:
        self.pieces = pieces
        self.kind = pieces.kind
        scores = pieces.scores
        self._order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        counts = counter.count_batch(pieces.texts())
        gap_tokens = counter.count(pieces.gap(0, len(pieces.text)))
        spare = pieces.spare
        super().__init__(
            counter,
            _sizes(self._order, counts, gap_tokens),
            (scores[i] * max(counts[i], 1) for i in self._order),
            fidelity=pieces.fidelity,
            most=len(scores) - 1,
            natural_prefix=None if spare is None else sum(score >= spare for score in scores),
        )

    @cached_property
    def ceiling(self) -> int:
        return self.counter.count(self.pieces.text)

    @cached_property
    def smallest(self) -> Cut | None:
        if self._divisible(0):
            return self._divided(0, self._points(0)[:1])
        return self.prefix(1) if self.most else None

    def fragments(self, count: int) -> list[Fragment]:
        bounds = self.pieces.bounds
        return self._joined([(bounds[i], bounds[i + 1]) for i in self._order[:count]])

    def filled(self, count: int, cut: Cut | None, tokens: int) -> Cut | None:
        if not self._divisible(count):
            return cut
        points = self._points(count)
        low, high = 0, len(points)
        while low < high:
            middle = (low + high) // 2
            longer = self._divided(count, points[middle : middle + 1])
            if longer is not None and longer.tokens <= tokens:
                cut, low = longer, middle + 1
            else:
                high = middle
        return cut

    def _divisible(self, count: int) -> bool:
        return count < len(self._order) and bool(self.pieces.divisible) and self.pieces.divisible[self._order[count]]

    def _points(self, count: int) -> list[int]:
        piece = self._order[count]
        return cut_points(self.pieces.text, self.pieces.bounds[piece], self.pieces.bounds[piece + 1])

    def _divided(self, count: int, points: Sequence[int]) -> Cut | None:
        """The first `count` pieces and the next one up to the one point given."""
        if not points:
            return None
        bounds, piece = self.pieces.bounds, self._order[count]
        spans = [(bounds[i], bounds[i + 1]) for i in self._order[:count]] + [(bounds[piece], points[0])]
        part = (points[0] - bounds[piece]) / (bounds[piece + 1] - bounds[piece])
        share = self.share(count) + part * (self.share(count + 1) - self.share(count))
        return self.cut_of(self._joined(spans), share)

    def _joined(self, spans: list[tuple[int, int]]) -> list[Fragment]:
        """Slices of the spans in order, neighbours as one, and a marker for each gap."""
        text, found, at, run = self.pieces.text, [], 0, 0
        for start, end in [*sorted(spans), (len(text), len(text))]:
            if start > at or start == len(text):
                found += [Fragment(text[run:at], run)] if at > run else []
                found += [Fragment(self.pieces.gap(at, start), None)] if start > at else []
                run = start
            at = end
        return found


def _sizes(order: Sequence[int], counts: Sequence[int], gap_tokens: int) -> list[float]:
    """Estimated tokens of each prefix of the ranking: its pieces, and a marker for each gap."""
    kept = [False] * len(order)
    total, gaps = 0, 1
    sizes = [float(gap_tokens)]
    for i in order:
        kept[i] = True
        left = i == 0 or kept[i - 1]
        right = i == len(order) - 1 or kept[i + 1]
        gaps += 1 - left - right
        total += counts[i]
        sizes.append(float(total + gaps * gap_tokens))
    return sizes
