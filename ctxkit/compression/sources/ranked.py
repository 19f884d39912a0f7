"""RankedSource: one ranking of a text's atoms; every rendering keeps a prefix of it, so smaller ones nest in larger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate

from ctxkit.compression.sources.cut import Cut, Fragment
from ctxkit.protocols import Counter

CONCAVITY = 0.7
"""The value of a share of the mass is that share to this power: the first half of a text says more than half."""

_ROUNDS = 18
_FULL_ENOUGH = 0.99


class RankedSource(ABC):
    """Renders the first k atoms of a ranking.

    sizes: estimated tokens of each prefix, [atoms + 1]; they need not grow. masses: value of each atom, in rank order.
    least: the shortest prefix that may stand alone. most: the longest that is worth rendering.
    natural_prefix: the prefix that drops only what this kind of text can spare.

    Estimates only guide the search: every rendering that is handed out was counted whole.
    """

    kind: str = "text"

    def __init__(
        self,
        counter: Counter,
        sizes: Sequence[float],
        masses: Iterable[float],
        *,
        fidelity: float,
        least: int = 1,
        most: int | None = None,
        natural_prefix: int | None = None,
    ) -> None:
        self.counter = counter
        self.fidelity = fidelity
        self.least = least
        self.most = len(sizes) - 1 if most is None else most
        self._sizes = sizes
        self._reach = list(accumulate(reversed(sizes), min))[::-1]
        self._kept = list(accumulate(masses, initial=0.0))
        self._natural_prefix = natural_prefix

    @abstractmethod
    def fragments(self, count: int) -> list[Fragment]:
        """The output that keeps the first `count` atoms."""

    @property
    @abstractmethod
    def ceiling(self) -> int: ...

    def filled(self, count: int, cut: Cut | None, tokens: int) -> Cut | None:
        """`cut` with a part of atom `count` where that may be divided and fits; else `cut`."""
        return cut

    @cached_property
    def natural(self) -> int | None:
        prefix = self._natural_prefix
        if prefix is None or not self.least <= prefix <= self.most:
            return None
        return self.prefix(prefix).tokens

    @cached_property
    def smallest(self) -> Cut | None:
        return self.prefix(self.least) if self.least <= self.most else None

    def prefix(self, count: int) -> Cut:
        return self.cut_of(self.fragments(count), self.share(count))

    def share(self, count: int) -> float:
        """Share of the mass that the first `count` atoms hold."""
        return self._kept[count] / self._kept[-1] if self._kept[-1] else 0.0

    def cut_of(self, fragments: Sequence[Fragment], share: float) -> Cut:
        text = "".join(fragment.text for fragment in fragments)
        return Cut(text, self.counter.count(text), self.fidelity * share**CONCAVITY, tuple(fragments))

    def at(self, tokens: int) -> Cut | None:
        count, best = self._largest(tokens)
        return self.filled(count, best, tokens)

    def _largest(self, tokens: int) -> tuple[int, Cut | None]:
        """The longest prefix that fits, by rescaling the estimates with each true count, and how many atoms it has."""
        low, high, best = self.least - 1, self.most + 1, None
        guess = self._guess(tokens)
        for turn in range(_ROUNDS):
            if high - low <= 1:
                break
            if not low < guess < high or turn % 3 == 2:  # estimates that are off on one side only creep nearer
                guess = (low + high) // 2
            cut = self.prefix(guess)
            if cut.tokens <= tokens:
                low, best = guess, cut
                if cut.tokens >= _FULL_ENOUGH * tokens:
                    break
            else:
                high = guess
            guess = self._guess(tokens * self._sizes[guess] / max(cut.tokens, 1))
        if best is None and high > self.least and self.smallest is not None and self.smallest.tokens <= tokens:
            low, best = self.least, self.smallest
        return max(low, 0), best

    def _guess(self, tokens: float) -> int:
        """The longest prefix that is estimated to fit."""
        return min(max(bisect_right(self._reach, tokens) - 1, self.least), self.most)
