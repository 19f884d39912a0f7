"""From what was chosen to one Decision per part, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.budget import Budget
from ctxkit.context.choose import Option
from ctxkit.context.group import Group
from ctxkit.context.level import Handle, Level, full
from ctxkit.context.part import Kind, Part
from ctxkit.context.plan import Decision
from ctxkit.context.problem import Costs, Problem
from ctxkit.protocols import Rendering


def decide(
    problem: Problem, chosen: Mapping[int, Level], rendering: Rendering, base: Rendering, costs: Costs
) -> tuple[Decision, ...]:
    """One decision per part, in the order the parts were given.

    chosen: level of every group, by group index. base: the pinned parts alone, counted exactly.
    """
    priced = {
        group.index: _Priced(group, chosen[group.index], costs.option(group, full(group))) for group in problem.unpinned
    }
    entries = _entries(problem, priced, base)
    used, slack = problem.tokens_by_kind(rendering), problem.limit - rendering.tokens
    decisions: dict[int, Decision] = {}
    for group in problem.groups:
        for position, part in zip(group.positions, group.parts, strict=True):
            tokens = rendering.by_owner.get(part.id, 0)
            if group.pinned:
                reason = "pinned" if part.pinned else "in the same group as a pinned part"
                decisions[position] = Decision(part, "full", "original", tokens, tokens, reason)
            else:
                one = priced[group.index]
                reason = one.reason(problem, slack, used)
                decisions[position] = one.decision(part, tokens, costs.part(part), reason, entries.get(group.index))
    return _numbered([decisions[position] for position in sorted(decisions)])


@dataclass(frozen=True, slots=True)
class _Priced:
    """An unpinned group, the level it got, and what it would cost whole."""

    group: Group
    level: Level
    whole: Option

    @property
    def density(self) -> float:
        return self.whole.value / max(self.whole.tokens, 1)

    @property
    def is_dropped(self) -> bool:
        return not self.level.parts

    def over_cap(self, budget: Budget, used: Mapping[Kind, int]) -> Kind | None:
        """The kind whose cap the group would exceed, with `used` tokens taken already."""
        over = (
            kind for kind, n in self.whole.by_kind.items() if kind in budget.caps and used[kind] + n > budget.caps[kind]
        )
        return next(over, None)

    def reason(self, problem: Problem, slack: int, used: Mapping[Kind, int]) -> str:
        budget = problem.budget
        worth = f"value {self.group.value:.2g}"
        if not self.is_dropped:
            return worth if self.level.name == "full" else f"reduced by {self.level.method}; whole it has {worth}"
        if self.group.value == 0:
            return "relevance 0: never taken"
        if self.group.value < problem.least_value:
            return f"{worth}, less than the least asked for ({problem.least_value:.2g})"
        kind = self.over_cap(budget, used)
        if kind is not None:
            left = max(budget.caps[kind] - used[kind], 0)
            return f"{worth}; needs {self.whole.tokens:,}, {left:,} left of the cap of {kind!r} ({budget.caps[kind]:,})"
        return f"{worth}; needs {self.whole.tokens:,}, {max(slack, 0):,} left"

    def decision(self, part: Part, tokens: int, full_tokens: int, reason: str, enters_at: int | None) -> Decision:
        handle = next((handle for handle in self.level.handles if handle.part_id == part.id), None)
        return Decision(
            part,
            self.level.name,
            self.level.method,
            tokens,
            full_tokens,
            reason,
            enters_at=enters_at if self.is_dropped else None,
            handle=handle or (Handle.of_whole(part) if self.is_dropped else None),
        )


def _entries(problem: Problem, priced: Mapping[int, _Priced], base: Rendering) -> dict[int, int]:
    """Window at which each group is in: everything worth more per token, itself, and what is fixed.

    A group that is worth too little, or that a cap keeps out at any window, is absent.
    """
    total, used = base.tokens + problem.budget.reserve_tokens, problem.tokens_by_kind(base)
    entries: dict[int, int] = {}
    candidates = [priced[group.index] for group in problem.optional]
    for one in sorted(candidates, key=lambda one: (-one.density, one.group.index)):
        if one.over_cap(problem.budget, used) is not None:
            continue
        total += one.whole.tokens
        entries[one.group.index] = total
        for kind, tokens in one.whole.by_kind.items():
            used[kind] += tokens
    return entries


def _numbered(decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """Kept passages get their citation numbers, as `compose` prints them."""
    numbered: list[Decision] = []
    passages = 0
    for decision in decisions:
        if decision.part.kind == "passage" and decision.kept:
            passages += 1
            decision = replace(decision, number=passages)
        numbered.append(decision)
    return tuple(numbered)
