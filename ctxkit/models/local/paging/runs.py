"""Runs: which tokens are stored where, as runs of tokens that follow each other in the text and within one page."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Runs:
    """One entry per run, in the order of the text. int64 [runs] each.

    slot: which page, as a column of a track's page table. first, count: the run's tokens within that page.
    position: where the first token stands in the text. origin: the position from which its keys were rotated.
    """

    slot: Array
    first: Array
    count: Array
    position: Array
    origin: Array

    @classmethod
    def empty(cls) -> Runs:
        return cls(*(np.zeros(0, np.int64) for _ in fields(cls)))

    def __len__(self) -> int:
        return len(self.slot)

    @property
    def tokens(self) -> int:
        return int(self.count.sum())

    @property
    def columns(self) -> tuple[Array, ...]:
        return (self.slot, self.first, self.count, self.position, self.origin)

    def at(self, index: Array | slice) -> Runs:
        return Runs(*(column[index] for column in self.columns))

    def then(self, more: Runs) -> Runs:
        """These and, behind them, more; a run that goes on where the last one ends becomes one with it."""
        if len(self) and len(more) == 1 and _goes_on(self, more):  # most tokens that are decoded
            count = self.count.copy()
            count[-1] += more.count[0]
            return replace(self, count=count)
        joined = [np.concatenate(pair) for pair in zip(self.columns, more.columns, strict=True)]
        if len(self) and len(more) and _goes_on(self, more):
            seam = len(self)
            joined[2][seam - 1] += joined[2][seam]
            joined = [np.delete(column, seam) for column in joined]
        return Runs(*joined)

    def token_positions(self) -> Array:
        """int64 [tokens], where each token stands in the text."""
        return _each(self.position, self.count)

    def token_places(self) -> tuple[Array, Array]:
        """int64 [tokens] each: the slot, and the offset in its page."""
        return np.repeat(self.slot, self.count), _each(self.first, self.count)

    def single(self) -> Runs:
        """The same tokens, each a run of its own."""
        slots, offsets = self.token_places()
        return Runs(slots, offsets, np.ones_like(slots), self.token_positions(), np.repeat(self.origin, self.count))

    def before(self, position: int) -> Runs:
        """The tokens that stand before `position`."""
        left = np.clip(position - self.position, 0, self.count)
        return Runs(self.slot, self.first, left, self.position, self.origin).at(left > 0)

    def since(self, position: int) -> Runs:
        """The tokens that stand at `position` or behind it."""
        cut = np.clip(position - self.position, 0, self.count)
        moved = Runs(self.slot, self.first + cut, self.count - cut, self.position + cut, self.origin)
        return moved.at(moved.count > 0)

    def outside(self, low: int, high: int) -> Runs:
        """The tokens that stand before `low`, or at `high` or behind it."""
        return self.before(low).then(self.since(max(low, high)))

    def pick(self, tokens: Array) -> Runs:
        """Some tokens: bool [tokens], or their sorted numbers among these, without repetition."""
        index = np.flatnonzero(tokens) if tokens.dtype == bool else np.asarray(tokens, np.int64)
        if not len(index):
            return Runs.empty()
        run = np.searchsorted(np.cumsum(self.count), index, side="right")
        starts = np.r_[True, (np.diff(index) != 1) | (np.diff(run) != 0)]
        heads = np.flatnonzero(starts)
        counts = np.diff(np.r_[heads, len(index)])
        of = run[heads]
        inner = index[heads] - (np.cumsum(self.count) - self.count)[of]
        return Runs(self.slot[of], self.first[of] + inner, counts, self.position[of] + inner, self.origin[of])


def _goes_on(runs: Runs, more: Runs) -> bool:
    end = runs.count[-1]
    return bool(
        runs.slot[-1] == more.slot[0]
        and runs.first[-1] + end == more.first[0]
        and runs.position[-1] + end == more.position[0]
        and runs.origin[-1] == more.origin[0]
    )


def _each(starts: Array, counts: Array) -> Array:
    """starts[0], starts[0] + 1, ... (counts[0] of them), starts[1], ..."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
