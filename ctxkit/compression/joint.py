"""Several texts under one budget: the words of all are one ranking."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from ctxkit.compression.cut import Cut, Source
from ctxkit.compression.ladder import height
from ctxkit.compression.ranked import CONCAVITY
from ctxkit.compression.word_source import WordSource
from ctxkit.protocols import Counter

_ROUNDS = 16

Chosen = list[Cut | None]
"""What became of each text; None: it stays whole."""


def cut_together(texts: Sequence[str], sources: Sequence[Source | None], counter: Counter, tokens: int) -> Chosen:
    """Texts cut so that together they take at most `tokens` tokens, as near to it as can be.

    Word sources share one ranking: what they have room for goes to the best words wherever they stand. All other texts
    are cut like a hedge, the largest first. A text for which there is no room becomes an empty one.
    """
    sizes = counter.count_batch(texts)
    ranked = [i for i, source in enumerate(sources) if isinstance(source, WordSource)]
    others = [i for i in range(len(texts)) if not isinstance(sources[i], WordSource)]
    total = sum(sizes)
    if total <= tokens:
        return [None] * len(texts)
    chosen: Chosen = [None] * len(texts)
    share = tokens if not ranked else tokens * sum(sizes[i] for i in others) // total
    left = tokens - _hedged(chosen, others, sources, sizes, share)
    words = _SharedRanking([sources[i] for i in ranked if isinstance(sources[i], WordSource)], counter)  # type: ignore[misc]
    for i, cut in zip(ranked, words.at(left), strict=True):
        chosen[i] = cut
    return chosen


def _hedged(chosen: Chosen, places: list[int], sources: Sequence[Source | None], sizes: list[int], tokens: int) -> int:
    """Cuts the texts at these places to at most `tokens` tokens in all, smallest first; gives what they take."""
    taken = 0
    waiting = sorted(places, key=lambda i: (sizes[i], i))
    while waiting:
        room = height([sizes[i] for i in waiting], [0] * len(waiting), tokens - taken) or 0
        i = waiting.pop(0)
        source = sources[i]
        if sizes[i] > room:
            cut = source.at(room) if source is not None and room else None
            chosen[i] = cut or Cut("", 0, 0.0, ())
        taken += sizes[i] if chosen[i] is None else chosen[i].tokens  # type: ignore[union-attr]
    return taken


class _SharedRanking:
    """The words of several texts, best first."""

    def __init__(self, sources: Sequence[WordSource], counter: Counter) -> None:
        self._sources = sources
        self._counter = counter
        merged = list(heapq.merge(*(_entries(i, source) for i, source in enumerate(sources))))
        self._owners = [owner for _, owner, _ in merged]
        self._sizes = list(accumulate((tokens for _, _, tokens in merged), initial=0))

    def at(self, tokens: int) -> Chosen:
        """The fullest prefix that fits, by rescaling estimates with true counts."""
        low, high = 0, len(self._owners) + 1
        best = self._cuts(0)
        guess = self._guess(tokens, low, high)
        for turn in range(_ROUNDS):
            if high - low <= 1:
                break
            guess = (low + high) // 2 if turn % 3 == 2 else guess  # estimates may be off on one side only
            cuts = self._cuts(guess)
            taken = sum(cut.tokens for cut in cuts)
            if taken <= tokens:
                low, best = guess, cuts
            else:
                high = guess
            guess = self._guess(self._sizes[guess] + tokens - taken, low, high)
        return list(best)

    def _guess(self, tokens: float, low: int, high: int) -> int:
        """Words that are estimated to fit, within the open interval."""
        return min(max(bisect_right(self._sizes, tokens) - 1, low + 1), high - 1)

    def _cuts(self, count: int) -> list[Cut]:
        kept = [0] * len(self._sources)
        for owner in self._owners[:count]:
            kept[owner] += 1
        fragments = [source.fragments(n) if n else [] for source, n in zip(self._sources, kept, strict=True)]
        texts = ["".join(fragment.text for fragment in some) for some in fragments]
        counts = self._counter.count_batch(texts)
        shares = [source.share(n) for source, n in zip(self._sources, kept, strict=True)]
        return [
            Cut(text, tokens, source.fidelity * share**CONCAVITY, tuple(some))
            for source, text, tokens, share, some in zip(self._sources, texts, counts, shares, fragments, strict=True)
        ]


def _entries(place: int, source: WordSource) -> Iterator[tuple[float, int, int]]:
    return ((-score, place, tokens) for score, tokens in zip(source.ranked_scores, source.word_tokens, strict=True))
