"""ThinnedSource: lines or rows that first lose words they can spare, and only then go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ctxkit.compression.sources.cut import Fragment
from ctxkit.compression.sources.pieces import Gap
from ctxkit.compression.sources.ranked import RankedSource
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.segment import Bounds
from ctxkit.compression.text.words import Words
from ctxkit.protocols import Counter

_SPARE_VALUE = 0.1
"""Value of a spare word beside that of a word of the same score that is none."""


@dataclass(frozen=True)
class Thinnable:
    """A text in pieces with words that they can spare.

    bounds: char offsets; piece i is text[bounds[i]:bounds[i + 1]]. scores: value per token of each piece, above 0.
    spare: (score, words), words of one piece that come after all pieces, together, by score; the others come with the
    piece. natural: spare words that score less are what this kind of text can do without.
    gap: writes the markers. words: of the text; none lies in two pieces.
    """

    text: str
    bounds: Bounds
    scores: Sequence[float]
    words: Words
    spare: Sequence[tuple[float, tuple[int, ...]]]
    gap: Gap
    kind: str
    fidelity: float
    natural: float | None = None


def words_in(text: str, bounds: Bounds, pins: Pins | None = None, question: str = "") -> Words | None:
    """The words of a text, None where one of them lies in two pieces. Whole cells in quotes are no pins."""
    if pins is not None:
        pins = replace(pins, kinds=tuple(kind for kind in pins.kinds if kind not in ("fence", "quoted")))
    words = Words.of(text, pins, question)
    inner = bounds[1:-1]
    places = (bisect_left(words.starts, edge) - 1 for edge in inner)
    crossed = any(
        place >= 0 and words.starts[place] + len(words.proper[place]) > edge
        for place, edge in zip(places, inner, strict=True)
    )
    return None if crossed else words


@dataclass(frozen=True, slots=True)
class _Atom:
    """A piece with the words that come with it, or spare words of one."""

    is_spare: bool
    score: float
    piece: int
    words: Sequence[int]


class ThinnedSource(RankedSource):
    """Keeps the best pieces less their spare words, then the spare words of all."""

    def __init__(self, thin: Thinnable, counter: Counter) -> None:
        self.thin = thin
        self.kind = thin.kind
        self._first = [bisect_left(thin.words.starts, bound) for bound in thin.bounds]
        self._atoms = self._ranked()
        counts = counter.count_batch(thin.words.spaced)
        tokens = [max(sum(counts[word] for word in atom.words), 1) for atom in self._atoms]
        natural = thin.natural
        super().__init__(
            counter,
            self._estimates(tokens, counter.count(thin.gap(0, len(thin.text)))),
            (
                (_SPARE_VALUE if atom.is_spare else 1.0) * max(atom.score, 1e-3) * size
                for atom, size in zip(self._atoms, tokens, strict=True)
            ),
            fidelity=thin.fidelity,
            most=len(self._atoms) - 1,
            natural_prefix=None
            if natural is None
            else sum(not atom.is_spare or atom.score >= natural for atom in self._atoms),
        )

    @cached_property
    def ceiling(self) -> int:
        return self.counter.count(self.thin.text)

    def fragments(self, count: int) -> list[Fragment]:
        kept: dict[int, list[int]] = {}
        for atom in self._atoms[:count]:
            kept.setdefault(atom.piece, []).extend(atom.words)
        found: list[Fragment] = []
        bounds, at = self.thin.bounds, 0
        for piece in [*sorted(kept), len(bounds) - 1]:
            if bounds[piece] > at:
                found.append(Fragment(self.thin.gap(at, bounds[piece]), None))
            if piece < len(bounds) - 1:
                _append(found, self._piece(piece, kept[piece]))
                at = bounds[piece + 1]
        return found

    def _ranked(self) -> list[_Atom]:
        """Pieces by score, then spare words by score."""
        spared = {word for _, words in self.thin.spare for word in words}
        pieces = [
            [word for word in range(first, last) if word not in spared]
            for first, last in zip(self._first, self._first[1:], strict=False)
        ]
        owners = [
            piece for piece, (a, b) in enumerate(zip(self._first, self._first[1:], strict=False)) for _ in range(a, b)
        ]
        atoms = [_Atom(False, self.thin.scores[i], i, words) for i, words in enumerate(pieces) if words]
        atoms += [_Atom(True, score, owners[words[0]], words) for score, words in self.thin.spare if words]
        return sorted(atoms, key=lambda atom: (atom.is_spare, -atom.score, atom.piece, atom.words[0]))

    def _estimates(self, tokens: Sequence[int], gap_tokens: int) -> list[float]:
        """Estimated tokens of each prefix: its words, and a marker for each gap."""
        kept = [False] * (len(self.thin.bounds) + 1)  # with one kept piece beyond each end: index -1 and the last
        kept[-1] = kept[-2] = True
        total, gaps = 0, 1
        sizes = [float(gap_tokens)]
        for atom, size in zip(self._atoms, tokens, strict=True):
            if not kept[atom.piece]:
                kept[atom.piece] = True
                gaps += 1 - kept[atom.piece - 1] - kept[atom.piece + 1]
            total += size
            sizes.append(float(total + gaps * gap_tokens))
        return sizes

    def _piece(self, piece: int, kept: Sequence[int]) -> list[Fragment]:
        """A piece with some of its words, its line end included."""
        text, words = self.thin.text, self.thin.words
        first, last = self._first[piece], self._first[piece + 1]
        start, end = self.thin.bounds[piece], self.thin.bounds[piece + 1]
        if len(kept) == last - first:
            return [Fragment(text[start:end], start)]
        found = [_after(fragment, start) for fragment in words.fragments(kept, first, last)]
        tail = max(words.starts[last - 1] + len(words.proper[last - 1]), found[-1].end)
        return [*found, Fragment(text[tail:end], tail)] if tail < end else found


def _after(fragment: Fragment, start: int) -> Fragment:
    """A fragment without what stands before the char offset `start`."""
    if fragment.start is None or fragment.start >= start:
        return fragment
    return Fragment(fragment.text[start - fragment.start :], start)


def _append(fragments: list[Fragment], more: Iterable[Fragment]) -> None:
    """Adds fragments, neighbouring slices as one."""
    for fragment in more:
        last = fragments[-1] if fragments else None
        if last is not None and last.start is not None and last.end == fragment.start:
            fragments[-1] = Fragment(last.text + fragment.text, last.start)
        else:
            fragments.append(fragment)
