"""Purse: how many calls can be asked at once, before any of them is reserved."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ctxkit.context import Run


class Purse:
    """What a run can pay for now, less what was taken out here. Reserves nothing: `Job.ask` does, and decides.

    A method that asks several calls at once fills a wave as far as the purse goes, so that no call of it is refused
    that could be paid for a little later, and a run that is resumed makes the same waves.
    """

    def __init__(self, run: Run) -> None:
        left = run.left
        self._left = [math.inf if n is None else n for n in (left.tokens, left.tokens_in, left.tokens_out, left.calls)]

    def __repr__(self) -> str:
        tokens, tokens_in, tokens_out, calls = self._left
        return f"Purse(tokens={tokens:g}, tokens_in={tokens_in:g}, tokens_out={tokens_out:g}, calls={calls:g})"

    def pays(self, tokens_in: int, tokens_out: int) -> bool:
        """Whether one call more can be paid for."""
        return all(n <= left for n, left in zip(_cost(tokens_in, tokens_out), self._left, strict=True))

    def take(self, tokens_in: int, tokens_out: int) -> bool:
        """Takes one call out; False, and nothing is taken, where it cannot be paid for."""
        if not self.pays(tokens_in, tokens_out):
            return False
        self._left = [left - n for n, left in zip(_cost(tokens_in, tokens_out), self._left, strict=True)]
        return True


def wave_size(run: Run, costs: Iterable[tuple[int, int]], most: int) -> int:
    """How many of these calls, in order, to ask at once: as many as the run can pay for, at most `most`, one at least.

    costs: tokens in and out of each call; read no further than needed.
    """
    purse, size = Purse(run), 0
    for cost in costs:
        if size == most or not purse.take(*cost):
            break
        size += 1
    return max(1, size)


def _cost(tokens_in: int, tokens_out: int) -> tuple[int, int, int, int]:
    return tokens_in + tokens_out, tokens_in, tokens_out, 1
