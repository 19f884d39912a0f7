"""Menu: what there is to choose from, priced, as arrays; and the steps along each group's concave hull."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Row = tuple[int, float, tuple[int, ...]]
"""One option: tokens, value, and its tokens of each limited kind."""


@dataclass(frozen=True)
class Steps:
    """Moves of a group from one of its options up to a costlier one, densest (value per token) first.

    All arrays are [steps]. start, end: options of the whole menu. limited: tokens by limited kind, [steps, kinds].
    """

    group: np.ndarray
    start: np.ndarray
    end: np.ndarray
    tokens: np.ndarray
    values: np.ndarray
    limited: np.ndarray

    @cached_property
    def density(self) -> np.ndarray:
        """Value per token; infinite where a step is free."""
        with np.errstate(divide="ignore"):
            return self.values / self.tokens


@dataclass(frozen=True)
class Menu:
    """The options of every group, cheapest first.

    offsets: int64 [groups + 1]; group g owns options `offsets[g]:offsets[g + 1]`.
    tokens: int64 [options], planning tokens. values: float64 [options], rising within a group.
    limited: int64 [options, kinds], tokens of the kinds that have a cap.
    """

    offsets: np.ndarray
    tokens: np.ndarray
    values: np.ndarray
    limited: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[Row]], kinds: int = 0) -> Menu:
        """From each group's options in the order of their tokens."""
        flat = [row for options in rows for row in options]
        counts = np.fromiter((len(options) for options in rows), np.int64, len(rows))
        limited = np.array([row[2] for row in flat], np.int64).reshape(len(flat), kinds)
        return cls(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.fromiter((row[0] for row in flat), np.int64, len(flat)),
            np.fromiter((row[1] for row in flat), np.float64, len(flat)),
            limited,
        )

    @property
    def groups(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def owner(self) -> np.ndarray:
        """Group of each option, int64 [options]."""
        return np.repeat(np.arange(self.groups), np.diff(self.offsets))

    @cached_property
    def least(self) -> np.ndarray:
        """Everyone's cheapest option, int64 [groups]."""
        return self.offsets[:-1]

    def hull(self, values: np.ndarray | None = None) -> Steps:
        """The steps along each group's upper concave hull of (tokens, value), from its cheapest option up.

        values: other values than the menu's own, such as values less the price of a limited kind.
        """
        worth = self.values if values is None else values
        pairs = np.diff(self.offsets) == 2
        first = self.offsets[:-1][pairs]
        moves = [(first, first + 1)]
        for group in np.flatnonzero(np.diff(self.offsets) > 2):
            ends = _upper_hull(self.tokens, worth, int(self.offsets[group]), int(self.offsets[group + 1]))
            moves.append((np.array(ends[:-1], np.int64), np.array(ends[1:], np.int64)))
        start = np.concatenate([move[0] for move in moves])
        end = np.concatenate([move[1] for move in moves])
        return self._ranked(start, end, worth)

    def _ranked(self, start: np.ndarray, end: np.ndarray, worth: np.ndarray) -> Steps:
        gain = worth[end] - worth[start]
        start, end, gain = start[gain > 0], end[gain > 0], gain[gain > 0]
        tokens = self.tokens[end] - self.tokens[start]
        steps = Steps(self.owner[start], start, end, tokens, gain, self.limited[end] - self.limited[start])
        order = np.lexsort((end, self.owner[start], -steps.density))
        fields = (steps.group, steps.start, steps.end, steps.tokens, steps.values, steps.limited)
        return Steps(*(array[order] for array in fields))


def _upper_hull(tokens: np.ndarray, values: np.ndarray, low: int, high: int) -> list[int]:
    """Options on the concave hull, by growing tokens; options that gain nothing are left out."""
    hull = [low]
    for option in range(low + 1, high):
        if values[option] <= values[hull[-1]]:
            continue
        while len(hull) > 1 and _bends_up(tokens, values, hull[-2], hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _bends_up(tokens: np.ndarray, values: np.ndarray, a: int, b: int, c: int) -> bool:
    """Whether b lies on or below the line from a to c."""
    rise, run = values[b] - values[a], tokens[b] - tokens[a]
    return bool(rise * (tokens[c] - tokens[a]) <= (values[c] - values[a]) * run)
