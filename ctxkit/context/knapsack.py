"""The choice: one option per group, the most value within a capacity. A multiple-choice knapsack.

On each group's concave hull every step up has a density, value gained per token. Taking steps densest first is the
optimum of the linear relaxation but for its last step; its value bounds every choice from above, and the last step's
density is the price of a token. `ctxkit.context.core` then settles the few groups that this leaves open.

Caps are priced the same way: a kind over its cap gets a price per token of its own, found by bisection, until the
relaxation keeps to the cap (Lagrangian relaxation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ctxkit.context.core import Core, settle
from ctxkit.context.menu import Menu, Steps

_ROUNDS = 2  # over the caps that bind, when their prices are sought
_BISECTIONS = 14
_PRICED_GROUPS = 4_000  # more than these, and prices of caps would take longer than they are worth


@dataclass(frozen=True)
class Choice:
    """picks: int64 [groups], the option of the menu that each group takes. value: what they are worth.

    bound: no choice can be worth more. shadow_price: value that one more token would buy, 0.0 where everything is in.
    """

    picks: np.ndarray
    value: float
    bound: float
    shadow_price: float


@dataclass(frozen=True)
class _Relaxation:
    """The linear relaxation at given prices of the limited kinds."""

    steps: Steps
    taken: int  # steps that fit whole, densest first
    price: float
    bound: float


def choose(menu: Menu, capacity: int, caps: np.ndarray) -> Choice:
    """The best choice found. The cheapest options together must fit.

    capacity: tokens for all groups. caps: int64 [kinds], tokens for each limited kind.
    """
    spare = int(capacity - menu.tokens[menu.least].sum())
    room = caps - menu.limited[menu.least].sum(axis=0)
    base = float(menu.values[menu.least].sum())
    plain = _relax(menu, spare, room, np.zeros(len(room)))
    prices, relaxed = _priced(menu, spare, room, plain)
    tried = [_greedy(menu, one.steps, spare, room) for one in ((plain, relaxed) if prices.any() else (plain,))]
    picks = max(tried, key=lambda one: float(menu.values[one].sum()))
    bound = min(relaxed.bound, plain.bound) + base
    value = float(menu.values[picks].sum())
    if bound - value > 1e-12 * max(abs(bound), 1.0):
        core = Core(menu, np.concatenate([[relaxed.price], prices]), np.concatenate([[capacity], caps]))
        settled = settle(core, picks, value)
        picks, bound = settled.picks, min(bound, settled.bound)
        value = float(menu.values[picks].sum())
    return Choice(picks, value, max(bound, value), plain.price)


def single_steps(menu: Menu, picks: np.ndarray) -> Steps:
    """From where each group stands to every option worth more, on the hull or not, densest first."""
    at = picks[menu.owner]
    end = np.flatnonzero(menu.values > menu.values[at])
    return menu._ranked(at[end], end, menu.values)


def _relax(menu: Menu, spare: int, room: np.ndarray, prices: np.ndarray) -> _Relaxation:
    """Densest steps first, the last cut to fit. The bound counts what the room of the limited kinds would fetch."""
    steps = menu.hull(menu.values - menu.limited @ prices if prices.any() else None)
    ends = np.cumsum(steps.tokens)
    taken = int(np.searchsorted(ends, spare, side="right"))
    bound = float(steps.values[:taken].sum()) + float(prices @ np.maximum(room, 0))
    if taken == len(ends):
        return _Relaxation(steps, taken, 0.0, bound)
    price = float(steps.density[taken])
    left = spare - (int(ends[taken - 1]) if taken else 0)
    return _Relaxation(steps, taken, price, bound + price * left)


def _priced(menu: Menu, spare: int, room: np.ndarray, plain: _Relaxation) -> tuple[np.ndarray, _Relaxation]:
    """Prices of the limited kinds at which the relaxation keeps to their room, and that relaxation."""
    prices, best = np.zeros(len(room)), plain
    if menu.groups > _PRICED_GROUPS:
        return prices, best
    for kind in _over(plain, room):
        low, high = 0.0, float(np.max(menu.values, initial=0.0)) + 1.0
        for _ in range(_BISECTIONS):
            prices[kind] = (low + high) / 2
            one = _relax(menu, spare, room, prices)
            if one.steps.limited[: one.taken, kind].sum() > room[kind]:
                low = prices[kind]
            else:
                high = prices[kind]
        prices[kind] = high
        best = _relax(menu, spare, room, prices)
    return prices, best


def _over(relaxed: _Relaxation, room: np.ndarray) -> Iterator[int]:
    """Kinds that the relaxation takes more of than there is room for, each as often as its price is to be sought."""
    used = relaxed.steps.limited[: relaxed.taken].sum(axis=0)
    binding = [int(kind) for kind in np.flatnonzero(used > room)]
    for _ in range(_ROUNDS if len(binding) > 1 else 1):
        yield from binding


def _greedy(menu: Menu, steps: Steps, spare: int, room: np.ndarray) -> np.ndarray:
    """Steps taken densest first while they fit; a group whose step was passed over stays where it is."""
    picks = menu.least.copy()
    first = _first_misfit(steps, spare, room)
    np.maximum.at(picks, steps.group[:first], steps.end[:first])
    left, open_room = spare - int(steps.tokens[:first].sum()), room - steps.limited[:first].sum(axis=0)
    at = first
    while at < len(steps.tokens):
        fits = (steps.tokens[at:] <= left) & (steps.limited[at:] <= open_room).all(axis=1)
        fits &= picks[steps.group[at:]] == steps.start[at:]
        ahead = int(fits.argmax())
        if not fits[ahead]:
            break
        at += ahead
        picks[steps.group[at]] = steps.end[at]
        left -= int(steps.tokens[at])
        open_room = open_room - steps.limited[at]
        at += 1
    return picks


def _first_misfit(steps: Steps, spare: int, room: np.ndarray) -> int:
    over = np.cumsum(steps.tokens) > spare
    if steps.limited.shape[1]:
        over |= (np.cumsum(steps.limited, axis=0) > room).any(axis=1)
    return int(over.argmax()) if over.any() else len(over)


def at_least(menu: Menu, floor: np.ndarray) -> Menu:
    """The menu without options below `floor`, int64 [groups]: the option that each group has at least.

    Options keep their numbers by being made as dear and as worthy as the floor.
    """
    below = np.arange(len(menu.tokens)) < floor[menu.owner]
    to = np.where(below, floor[menu.owner], np.arange(len(menu.tokens)))
    return replace(menu, tokens=menu.tokens[to], values=menu.values[to], limited=menu.limited[to])
