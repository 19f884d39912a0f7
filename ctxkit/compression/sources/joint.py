"""Several texts under one budget: the words of all are one ranking."""

from __future__ import annotations

import heapq
import sys
from bisect import bisect_right
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterator, Sequence

from ctxkit.compression.sources.cut import Cut, Source
from ctxkit.compression.sources.ladder import height
from ctxkit.compression.sources.ranked import CONCAVITY
from ctxkit.compression.sources.word_source import LateWordSource, WordSource
from ctxkit.protocols import Counter

_ROUNDS = 16

Ranked = WordSource | LateWordSource
"""What takes part in the ranking of all texts."""

Chosen = list[Cut | None]
"""What became of each text; None: it stays whole."""


def cut_together(texts: Sequence[str], sources: Sequence[Source | None], counter: Counter, tokens: int) -> Chosen:
    """Texts cut so that together they take at most `tokens` tokens, as near to it as can be.

    Word sources share one ranking: what they have room for goes to the best words wherever they stand. All other texts
    are cut like a hedge, the largest first. A text for which there is no room becomes an empty one.
    """
    sizes = counter.count_batch(texts)
    ranked = {i: source for i, source in enumerate(sources) if isinstance(source, Ranked)}
    others = [i for i in range(len(texts)) if i not in ranked]
    total = sum(sizes)
    if total <= tokens:
        return [None] * len(texts)
    chosen: Chosen = [None] * len(texts)
    share = tokens if not ranked else tokens * sum(sizes[i] for i in others) // total
    left = tokens - _hedged(chosen, others, sources, sizes, share)
    words = _SharedRanking(list(ranked.values()), counter)
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
    """The words of several texts, best first. They are read as far as there is room for them."""

    def __init__(self, sources: Sequence[Ranked], counter: Counter) -> None:
        self._sources = sources
        self._counter = counter
        self._waiting = _merged(sources)
        self._owners: list[int] = []
        self._sizes = [0]

    def at(self, tokens: int) -> Chosen:
        """The fullest prefix that fits, by rescaling estimates with true counts."""
        low, high = 0, sys.maxsize
        best = self._cuts(0)
        room = tokens
        for turn in range(_ROUNDS):
            guess = self._guess(room, low, high)
            if not low < guess < high:
                break
            if turn % 3 == 2 and high < sys.maxsize:
                guess = (low + high) // 2  # estimates may be off on one side only
            cuts = self._cuts(guess)
            taken = sum(cut.tokens for cut in cuts)
            if taken <= tokens:
                low, best = guess, cuts
            else:
                high = guess
            room = self._sizes[guess] + tokens - taken
        return list(best)

    def _guess(self, tokens: int, low: int, high: int) -> int:
        """Words that are estimated to fit, within the open interval; outside of it where that is empty."""
        while self._sizes[-1] <= tokens or len(self._owners) <= low:
            entry = next(self._waiting, None)
            if entry is None:
                break
            self._owners.append(entry[1])
            self._sizes.append(self._sizes[-1] + entry[2])
        return min(max(bisect_right(self._sizes, tokens) - 1, low + 1), high - 1, len(self._owners))

    def _cuts(self, count: int) -> list[Cut]:
        kept = Tally(self._owners[:count])
        cuts = [Cut("", 0, 0.0, ())] * len(self._sources)
        sources = {place: self._sources[place].opened for place in kept}
        fragments = {place: source.fragments(kept[place]) for place, source in sources.items()}
        texts = ["".join(fragment.text for fragment in some) for some in fragments.values()]
        for place, text, tokens in zip(kept, texts, self._counter.count_batch(texts), strict=True):
            value = sources[place].fidelity * sources[place].share(kept[place]) ** CONCAVITY
            cuts[place] = Cut(text, tokens, value, tuple(fragments[place]))
        return cuts


def _merged(sources: Sequence[Ranked]) -> Iterator[tuple[float, int, int]]:
    """(score, place, tokens) of all words, best first. A source is opened when its best word may be the next."""
    closed = deque(sorted(range(len(sources)), key=lambda place: -sources[place].best))
    ahead: list[tuple[float, int, int, Iterator[tuple[float, int, int]]]] = []
    while closed or ahead:
        while closed and (not ahead or -sources[closed[0]].best <= ahead[0][0]):
            place = closed.popleft()
            entries = _entries(place, sources[place].opened)
            heapq.heappush(ahead, (*next(entries), entries))
        score, place, tokens, entries = ahead[0]
        yield -score, place, tokens
        following = next(entries, None)
        if following is None:
            heapq.heappop(ahead)
        else:
            heapq.heapreplace(ahead, (*following, entries))


def _entries(place: int, source: WordSource) -> Iterator[tuple[float, int, int]]:
    return ((-score, place, tokens) for score, tokens in zip(source.ranked_scores, source.word_tokens, strict=True))
