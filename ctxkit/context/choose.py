"""The choice: one level per group, the most value within a capacity.

A multiple-choice knapsack. On each group's concave hull every step up has a density (value gained per token); steps
are taken densest first while they fit, which is the optimum of the linear relaxation but for its last step. What that
leaves over goes to single steps that still fit. The relaxation's value bounds every possible choice from above.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ctxkit.context.budget import Budget
from ctxkit.context.part import KINDS, Kind


@dataclass(frozen=True, slots=True)
class Option:
    """One level of one group, priced: planning tokens in all and by kind; value = priority x relevance x utility."""

    tokens: int
    by_kind: Mapping[Kind, int]
    value: float


@dataclass(frozen=True, slots=True)
class Step:
    """Moving a group from one of its options up to a costlier one. `density` is value gained per token."""

    group: int
    start: int
    end: int
    tokens: int
    value: float

    @property
    def density(self) -> float:
        return self.value / max(self.tokens, 1)

    @property
    def order(self) -> tuple[float, int, int]:
        return (-self.density, self.group, self.end)


@dataclass(frozen=True, slots=True)
class Choice:
    """picks: option taken by each group. value: what they are worth. bound: no choice can be worth more.

    shadow_price: value that one more token would buy, 0.0 where everything is in.
    """

    picks: Mapping[int, int]
    value: float
    bound: float
    shadow_price: float


def choose(
    options: Mapping[int, Sequence[Option]],
    steps: Sequence[Step],
    capacity: int,
    budget: Budget,
    pinned: Mapping[Kind, int],
) -> Choice:
    """The best picks for `capacity` tokens.

    options: per group, cheapest first; the first costs nothing (dropped). steps: `ranked_steps(options)`.
    pinned: tokens that pinned parts already take, by kind; they count against caps and towards floors.
    """
    state = _State(options, capacity, budget, pinned)
    for kind in KINDS:
        state.raise_floor(kind, steps)
    state.take(steps)
    state.take(sorted(single_steps(options, state.picks), key=lambda step: step.order))
    value = value_of(options, state.picks)
    bound, price = relaxation(steps, capacity)
    return Choice(dict(state.picks), value, max(bound, value), price)


def ranked_steps(options: Mapping[int, Sequence[Option]]) -> list[Step]:
    """The hull steps of all groups, densest first."""
    steps = (step for group, levels in options.items() for step in hull_steps(group, levels))
    return sorted(steps, key=lambda step: step.order)


def hull_steps(group: int, levels: Sequence[Option]) -> list[Step]:
    """Steps along the upper concave hull of (tokens, value), from the dropped level up; densities fall."""
    steps: list[Step] = []
    at = 0
    while True:
        higher = [i for i in range(len(levels)) if _is_above(levels[i], levels[at])]
        if not higher:
            return steps
        candidates = (_step(group, levels, at, i) for i in higher)
        best = max(candidates, key=lambda step: (step.density, step.tokens))
        steps.append(best)
        at = best.end


def relaxation(steps: Iterable[Step], capacity: int) -> tuple[float, float]:
    """Value of the linear relaxation (densest steps first, the last cut to fit), and the density of that last step."""
    values: list[float] = []
    left = capacity
    for step in steps:
        if step.tokens > left:
            return math.fsum([*values, step.density * left]), step.density
        values.append(step.value)
        left -= step.tokens
    return math.fsum(values), 0.0


def value_of(options: Mapping[int, Sequence[Option]], picks: Mapping[int, int]) -> float:
    """What the picks are worth; rounded once, so that equal sets of values are equal sums."""
    return math.fsum(options[group][pick].value for group, pick in picks.items())


def _is_above(option: Option, other: Option) -> bool:
    """Worth more and no cheaper. An empty part may cost nothing."""
    return option.tokens >= other.tokens and option.value > other.value


def _step(group: int, levels: Sequence[Option], start: int, end: int) -> Step:
    a, b = levels[start], levels[end]
    return Step(group, start, end, b.tokens - a.tokens, b.value - a.value)


class _State:
    """What is taken so far, and what is left of the capacity and of each cap."""

    def __init__(
        self, options: Mapping[int, Sequence[Option]], capacity: int, budget: Budget, pinned: Mapping[Kind, int]
    ) -> None:
        self.options = options
        self.picks = dict.fromkeys(options, 0)
        self.left = capacity
        self.caps = budget.caps
        self.floors = budget.floors
        self.used = {kind: pinned.get(kind, 0) for kind in KINDS}

    def take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if self.fits(step):
                self.apply(step)

    def fits(self, step: Step) -> bool:
        if self.picks[step.group] != step.start or step.tokens > self.left:
            return False
        before, after = self.options[step.group][step.start].by_kind, self.options[step.group][step.end].by_kind
        return all(
            self.used[kind] + tokens - before.get(kind, 0) <= self.caps[kind]
            for kind, tokens in after.items()
            if kind in self.caps
        )

    def apply(self, step: Step) -> None:
        before, after = self.options[step.group][step.start].by_kind, self.options[step.group][step.end].by_kind
        for kind in KINDS:
            self.used[kind] += after.get(kind, 0) - before.get(kind, 0)
        self.left -= step.tokens
        self.picks[step.group] = step.end

    def raise_floor(self, kind: Kind, steps: Sequence[Step]) -> None:
        for step in steps:
            if self.used[kind] >= self.floors.get(kind, 0):
                return
            if kind in self.options[step.group][step.end].by_kind and self.fits(step):
                self.apply(step)


def single_steps(options: Mapping[int, Sequence[Option]], picks: Mapping[int, int]) -> Iterable[Step]:
    """From where each group stands to every option above it, on the hull or not."""
    for group, pick in picks.items():
        levels = options[group]
        for i in range(len(levels)):
            if _is_above(levels[i], levels[pick]):
                yield _step(group, levels, pick, i)
