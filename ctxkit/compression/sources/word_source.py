"""WordSource: the words of a text in one ranking; every rendering keeps a prefix of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import ClassVar

from ctxkit.compression.sources.cut import Cut, Fragment
from ctxkit.compression.sources.ranked import RankedSource
from ctxkit.compression.text.words import Words
from ctxkit.protocols import Counter

FIDELITY = 0.85
"""Value of all words when they stand in telegraphic style."""

FACTS_BY = 0.45
"""Of a text cut to this share all pins are kept, if they take less."""

_LEAST_SCORE = 1e-6
_LEAST_MIX = 0.02


class WordSource(RankedSource):
    """Keeps the best words, in the order of the text.

    scores: of each word, [words], higher is better; of texts that are cut together they must be comparable.
    The ranking is that of `ranked_words`.
    """

    kind = "words"
    facts_by: ClassVar[float] = FACTS_BY

    def __init__(self, words: Words, scores: Sequence[float], counter: Counter, fidelity: float = FIDELITY) -> None:
        self.words = words
        counts = counter.count_batch(words.spaced)
        self.order, self.ranked_scores = ranked_words(words, scores, counts, self.facts_by)
        self.word_tokens = [counts[i] for i in self.order]
        least = min(self.ranked_scores, default=0.0)
        super().__init__(
            counter,
            list(accumulate(self.word_tokens, initial=0)),
            (
                (score - least + _LEAST_SCORE) * max(tokens, 1)
                for score, tokens in zip(self.ranked_scores, self.word_tokens, strict=True)
            ),
            fidelity=fidelity,
            most=len(words) - 1,
        )

    @property
    def best(self) -> float:
        """The score of the word that goes last."""
        return self.ranked_scores[0]

    @property
    def opened(self) -> WordSource:
        return self

    @cached_property
    def ceiling(self) -> int:
        return self.counter.count(self.words.text)

    def fragments(self, count: int) -> list[Fragment]:
        return self.words.fragments(self.order[:count])


class LateWordSource:
    """A WordSource that is made when it is first looked into: a text that never gets in is never cut.

    best: no word of it scores higher. make: gives the WordSource; called once.
    """

    kind = WordSource.kind

    def __init__(self, best: float, make: Callable[[], WordSource]) -> None:
        self.best = best
        self._make = make

    @cached_property
    def opened(self) -> WordSource:
        return self._make()

    @property
    def ceiling(self) -> int:
        return self.opened.ceiling

    @property
    def natural(self) -> int | None:
        return self.opened.natural

    @property
    def smallest(self) -> Cut | None:
        return self.opened.smallest

    def at(self, tokens: int) -> Cut | None:
        return self.opened.at(tokens)


def ranked_words(
    words: Words, scores: Iterable[float], sizes: Sequence[int], facts_by: float = FACTS_BY
) -> tuple[list[int], list[float]]:
    """The words, best first, and falling scores of them. sizes: of each word, in any unit.

    A pin ranks with the best word of its sentence, before it: whatever is kept of a sentence keeps its pins, and a pin
    goes only with the whole sentence. And facts, the pins that nobody can guess, come early enough that a text cut to
    the share `facts_by` has them all, whatever the scores say, if only they fit.
    """
    lifted = _lifted(words, scores)
    order = sorted(range(len(words)), key=lambda i: (-lifted[i], not words.pinned[i], i))
    whole = sum(sizes)
    facts = words.facts
    room = facts_by * whole - sum(size for size, fact in zip(sizes, facts, strict=True) if fact)
    room = max(room, _LEAST_MIX * whole)  # for words among the facts
    mixed = 0
    for head, i in enumerate(order):
        mixed += 0 if facts[i] else sizes[i]
        if mixed > room:
            tail = order[head:]
            found = [*order[:head], *(j for j in tail if facts[j]), *(j for j in tail if not facts[j])]
            return found, [max(lifted[j], lifted[i]) if facts[j] else lifted[j] for j in found]
    return order, [lifted[i] for i in order]


def _lifted(words: Words, scores: Iterable[float]) -> list[float]:
    """The scores, those of pins raised to the best of their sentence."""
    own = list(scores)
    best: dict[int, float] = {}
    for sentence, score in zip(words.sentences, own, strict=True):
        best[sentence] = max(score, best.get(sentence, score))
    return [
        best[sentence] if pinned else score
        for sentence, score, pinned in zip(words.sentences, own, words.pinned, strict=True)
    ]
