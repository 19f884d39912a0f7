"""From planning costs to a prompt that fits, counted exactly.

Planning adds up cached token counts; that is only an estimate, since a tokenizer may join or split at the seams. So
every candidate is rendered, and the capacity of the next choice is corrected by what was off. At the end, single groups
that may still fit are tried one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.choose import Option, choose, ranked_steps, single_steps, value_of
from ctxkit.context.level import Level
from ctxkit.context.problem import SEAM_TOKENS, Costs, Problem
from ctxkit.protocols import Rendering

_CORRECTIONS = 12  # of the capacity; two are usual
_TRIES = 12  # of single groups, at the end

Ladders = Mapping[int, Sequence[Level]]


@dataclass(frozen=True)
class Found:
    """Picks that were rendered and fit. `bound` and `shadow_price` are the chooser's, by planning costs."""

    picks: Mapping[int, int]
    rendering: Rendering
    value: float = 0.0
    bound: float = 0.0
    shadow_price: float = 0.0

    def levels(self, ladders: Ladders) -> dict[int, Level]:
        return {index: ladders[index][pick] for index, pick in self.picks.items() if pick > 0}


def search(problem: Problem, base: Rendering, ladders: Ladders, costs: Costs) -> Found:
    """The best picks that fit.

    base: the pinned parts alone, which fit. ladders: levels of each optional group, dropped first.
    """
    options = costs.options(problem.optional, ladders)
    nothing = Found(dict.fromkeys(options, 0), base)
    found = _corrected(problem, nothing, ladders, options)
    return _filled(problem, found, ladders, options)


def _corrected(problem: Problem, best: Found, ladders: Ladders, options: Mapping[int, Sequence[Option]]) -> Found:
    """Choose, render, correct the capacity by what the estimate was off, until nothing better fits."""
    pinned = problem.tokens_by_kind(best.rendering)
    capacity, budget = problem.limit - best.rendering.tokens, problem.budget
    steps = ranked_steps(options)
    seen: set[tuple[int, ...]] = set()
    for attempt in range(_CORRECTIONS):
        choice = choose(options, steps, capacity, budget, pinned)
        key = tuple(choice.picks.values())
        if key in seen:
            break
        seen.add(key)
        found = Found(choice.picks, best.rendering, choice.value, choice.bound, choice.shadow_price)
        levels = found.levels(ladders)
        found = replace(found, rendering=problem.render(levels))
        over = found.rendering.tokens - problem.limit
        excess = problem.over_caps(found.rendering, levels)
        if over <= 0 and not excess:
            best = found if found.value > best.value or not best.bound else best
            capacity -= over
        else:
            # Doubling from the fourth on ends a search in which each correction uncovers another.
            capacity -= max(over, 0) * 2 ** max(attempt - 3, 0)
            caps = {kind: max(cap - excess.get(kind, 0), 0) for kind, cap in budget.caps.items()}
            budget = replace(budget, floors={}, caps=caps)
    return best


def _filled(problem: Problem, found: Found, ladders: Ladders, options: Mapping[int, Sequence[Option]]) -> Found:
    """Single steps up that may fit into what is left, densest first, each proved by rendering it."""
    tries = 0
    for step in sorted(single_steps(options, found.picks), key=lambda step: step.order):
        left = problem.limit - found.rendering.tokens
        if found.picks[step.group] != step.start or step.tokens > left + SEAM_TOKENS:
            continue
        if tries == _TRIES:
            break
        tries += 1
        picks = {**found.picks, step.group: step.end}
        tried = replace(found, picks=picks, value=value_of(options, picks))
        levels = tried.levels(ladders)
        rendering = problem.render(levels)
        if problem.fits(rendering, levels):
            found = replace(tried, rendering=rendering, bound=max(found.bound, tried.value))
    return found
