"""The core of a multiple-choice knapsack: the few groups that the relaxation leaves open, settled exactly.

At the relaxation's prices every option has a loss against its group's best. An option whose loss is larger than the gap
between bound and best value can be in no better choice, so most groups are settled at once (Pisinger, 1995). The others
are enumerated as states (tokens, value), dominated and hopeless ones dropped. Where that would grow too large, the most
promising states go on, and what was dropped still counts in the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctxkit.context.menu import Menu

_STATES = 12_000  # kept per group
_WORK = 1_500_000  # states made in all
_DEPTH = 250  # groups: what more would settle is less than the tolerance
_TOLERANCE = 1e-6  # of the value: a choice better by less is not looked for


@dataclass(frozen=True)
class Core:
    """prices: float64 [1 + kinds], of a token and of a token of each limited kind. room: int64 [1 + kinds]."""

    menu: Menu
    prices: np.ndarray
    room: np.ndarray

    @cached_property
    def weights(self) -> np.ndarray:
        """int64 [options, 1 + kinds]."""
        return np.concatenate([self.menu.tokens[:, None], self.menu.limited], axis=1)

    @cached_property
    def reduced(self) -> np.ndarray:
        """Value less price, float64 [options]."""
        return self.menu.values - self.weights @ self.prices

    @cached_property
    def best(self) -> np.ndarray:
        """The option of each group that is best at these prices, int64 [groups]."""
        order = np.lexsort((-self.reduced, self.menu.owner))
        return order[self.menu.offsets[:-1]]

    @cached_property
    def bound(self) -> float:
        return float(self.reduced[self.best].sum() + self.prices @ self.room)

    @cached_property
    def loss(self) -> np.ndarray:
        """By how much each option is worse than its group's best, float64 [options]."""
        return self.reduced[self.best][self.menu.owner] - self.reduced


@dataclass(frozen=True)
class Settled:
    picks: np.ndarray
    bound: float


@dataclass
class _Layer:
    """States after one group: which state before (parent) and which option each comes from."""

    parent: np.ndarray
    option: np.ndarray


def settle(core: Core, picks: np.ndarray, value: float) -> Settled:
    """The best choice, at least as good as `picks` (worth `value`), and a bound on every choice."""
    least_gain = _TOLERANCE * abs(value)
    alive = core.bound - core.loss > value + least_gain
    alive[core.best] = True
    open_groups = np.flatnonzero(np.bincount(core.menu.owner[alive], minlength=core.menu.groups) > 1)
    if not len(open_groups):
        return Settled(picks, value + least_gain)
    return _Search(core, alive, open_groups, picks, value + least_gain).run()


class _Search:
    def __init__(self, core: Core, alive: np.ndarray, groups: np.ndarray, picks: np.ndarray, value: float) -> None:
        self.core, self.alive, self.picks, self.value = core, alive, picks, value
        # The most undecided first: good choices come early, and bounds bite.
        runner_up = [np.partition(core.loss[self._options(g)], 1)[1] for g in groups]
        self.groups = groups[np.argsort(runner_up, kind="stable")]
        self.layers: list[_Layer] = []
        self.dropped_bound = -np.inf

    def _options(self, group: int) -> np.ndarray:
        low, high = self.core.menu.offsets[group : group + 2]
        return np.arange(low, high)[self.alive[low:high]]

    def run(self) -> Settled:
        settled = np.ones(self.core.menu.groups, bool)
        settled[self.groups] = False
        fixed = self.core.best[settled]
        weights = self.core.weights[fixed].sum(axis=0)[None, :]  # [states, 1 + kinds]
        values = np.array([self.core.menu.values[fixed].sum()])
        work = 0
        for depth, group in enumerate(self.groups):
            options = self._options(group)
            work += len(values) * len(options)
            if work > _WORK or depth == _DEPTH:
                self._give_up(weights, values, depth)
                break
            weights, values = self._extend(weights, values, options)
            self._complete(weights, values, depth + 1)
            weights, values = self._prune(weights, values, depth + 1)
            if not len(values):
                break
        return Settled(self.picks, max(self.value, self.dropped_bound))

    def _extend(self, weights: np.ndarray, values: np.ndarray, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, states = len(options), len(values)
        self.layers.append(_Layer(np.tile(np.arange(states), count), np.repeat(options, states)))
        grown = weights[None, :, :] + self.core.weights[options][:, None, :]
        return grown.reshape(count * states, -1), (values[None, :] + self.core.menu.values[options][:, None]).ravel()

    def _complete(self, weights: np.ndarray, values: np.ndarray, depth: int) -> None:
        """Each state with the best options of the groups to come, where that fits."""
        fits = (weights + self._best_weights[depth] <= self.core.room).all(axis=1)
        worth = np.where(fits, values + self._best_values[depth], -np.inf)
        top = int(worth.argmax())
        if worth[top] > self.value:
            self.value, self.picks = float(worth[top]), self._traced(top, depth)

    def _traced(self, state: int, depth: int) -> np.ndarray:
        """The choice that a state of the newest layer stands for, completed by the best options of later groups."""
        chosen = self.core.best.copy()
        for at in range(depth - 1, -1, -1):
            chosen[self.groups[at]] = self.layers[at].option[state]
            state = int(self.layers[at].parent[state])
        return chosen

    def _prune(self, weights: np.ndarray, values: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Without the states that cannot fit, cannot beat the best value, or are dominated."""
        bound = values + (self.core.room - weights) @ self.core.prices + self._best_ahead[depth]
        fits = (weights + self._least_weights[depth] <= self.core.room).all(axis=1)
        keep = np.flatnonzero((bound > self.value) & fits)
        if weights.shape[1] == 1:
            keep = _undominated(weights[:, 0], values, keep)
        if len(keep) > _STATES:
            promise = values[keep] - weights[keep] @ self.core.prices
            ranked = np.argsort(-promise, kind="stable")
            self._count_dropped(float(promise[ranked[_STATES]]), depth)
            keep = keep[ranked[:_STATES]]
        layer = self.layers[-1]
        layer.parent, layer.option = layer.parent[keep], layer.option[keep]
        return weights[keep], values[keep]

    def _give_up(self, weights: np.ndarray, values: np.ndarray, depth: int) -> None:
        self._count_dropped(float((values - weights @ self.core.prices).max()), depth)

    def _count_dropped(self, promise: float, depth: int) -> None:
        bound = promise + float(self.core.prices @ self.core.room) + self._best_ahead[depth]
        self.dropped_bound = max(self.dropped_bound, bound)

    def _ahead(self, per_group: np.ndarray) -> np.ndarray:
        """Sums over the groups from each depth on; one more row, of zeros."""
        zero = np.zeros((1, *per_group.shape[1:]), per_group.dtype)
        return np.concatenate([np.cumsum(per_group[::-1], axis=0)[::-1], zero])

    @cached_property
    def _best_ahead(self) -> np.ndarray:
        return self._ahead(self.core.reduced[self.core.best[self.groups]])

    @cached_property
    def _best_values(self) -> np.ndarray:
        return self._ahead(self.core.menu.values[self.core.best[self.groups]])

    @cached_property
    def _best_weights(self) -> np.ndarray:
        return self._ahead(self.core.weights[self.core.best[self.groups]])

    @cached_property
    def _least_weights(self) -> np.ndarray:
        least = [self.core.weights[self._options(group)].min(axis=0) for group in self.groups]
        return self._ahead(np.array(least))


def _undominated(tokens: np.ndarray, values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Of the states in `keep`, those that no other beats with as few tokens and as much value."""
    order = keep[np.lexsort((-values[keep], tokens[keep]))]
    highest = np.maximum.accumulate(np.concatenate([[-np.inf], values[order]]))[:-1]
    return np.sort(order[values[order] > highest])
