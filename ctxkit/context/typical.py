"""Typical: which groups would be reduced, going by what levels are like on average and before any is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxkit.context.group import Group
from ctxkit.context.knapsack import choose
from ctxkit.context.menu import Menu, Row

_SHARES = (0.03, 0.06, 0.14, 0.32, 0.7)  # of a group's tokens
_FIDELITY = 0.9  # of a level that keeps almost all
_CONCAVITY = 0.7  # the first sentences kept are worth more than the last
_LEAST_TOKENS = 12  # no level is smaller
LEAST_REDUCIBLE_TOKENS = 64  # of a group that is worth asking for levels


def typical(groups: Sequence[Group], sizes: Sequence[int], values: Sequence[float], capacity: int) -> list[Group]:
    """The groups that the best choice among typical levels would reduce, and the required ones that it would.

    sizes: tokens of each group whole, about. values: by group index. capacity: planning tokens for all of them.
    """
    rows = [_rows(group, size, values[group.index]) for group, size in zip(groups, sizes, strict=True)]
    menu = Menu.of(rows)
    least = int(menu.tokens[menu.least].sum())
    choice = choose(menu, max(capacity, least), np.zeros(0, np.int64))
    whole, nothing = menu.offsets[1:] - 1, menu.offsets[:-1]
    reducible = np.array(sizes) >= LEAST_REDUCIBLE_TOKENS
    required = np.array([group.required for group in groups], bool)
    reduced = reducible & (choice.picks != whole) & ((choice.picks != nothing) | required)
    return [groups[int(place)] for place in np.flatnonzero(reduced)]


def _rows(group: Group, size: int, value: float) -> list[Row]:
    """The typical levels of one group, cheapest first."""
    rows: list[Row] = [] if group.required else [(0, 0.0, ())]
    for share in _SHARES:
        tokens = int(share * size)
        if _LEAST_TOKENS <= tokens < size:
            rows.append((tokens, value * _FIDELITY * share**_CONCAVITY, ()))
    return [*rows, (max(size, 1), value, ())]
