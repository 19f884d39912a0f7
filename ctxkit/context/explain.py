"""From what was chosen to one Decision per part, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.budget import Budget
from ctxkit.context.group import Group
from ctxkit.context.level import Handle, Level
from ctxkit.context.part import KINDS, Kind, Part
from ctxkit.context.plan import Decision
from ctxkit.protocols import Rendering


def decide(
    groups: Sequence[Group],
    chosen: Mapping[int, Level],
    rendering: Rendering,
    budget: Budget,
    base: Rendering,
    cost: Callable[[Part], int],
) -> tuple[Decision, ...]:
    """One decision per part, in the order the parts were given.

    chosen: level of every group, by group index. base: the pinned parts alone, counted exactly.
    cost: planning tokens of an unpinned part, whole.
    """
    priced = {g.index: _Priced.of(g, chosen[g.index], cost) for g in groups if not g.pinned}
    entries = _entries(list(priced.values()), base.tokens + budget.reserve_tokens, _by_kind(groups, base), budget)
    used, slack = _by_kind(groups, rendering), budget.prompt_tokens - rendering.tokens
    decisions: dict[int, Decision] = {}
    for group in groups:
        for position, part in zip(group.positions, group.parts, strict=True):
            tokens = rendering.by_owner.get(part.id, 0)
            if group.pinned:
                reason = "pinned" if part.pinned else "in the same group as a pinned part"
                decisions[position] = Decision(part, "full", "original", tokens, tokens, reason)
            else:
                one = priced[group.index]
                reason = one.reason(budget, slack, used)
                decisions[position] = one.decision(part, tokens, cost(part), reason, entries.get(group.index))
    return _numbered([decisions[position] for position in sorted(decisions)])


def _by_kind(groups: Sequence[Group], rendering: Rendering) -> dict[Kind, int]:
    used = dict.fromkeys(KINDS, 0)
    for group in groups:
        for part in group.parts:
            used[part.kind] += rendering.by_owner.get(part.id, 0)
    return used


@dataclass(frozen=True, slots=True)
class _Priced:
    """An unpinned group, the level it got, and what it would cost whole, in all and by kind."""

    group: Group
    level: Level
    tokens: int
    by_kind: Mapping[Kind, int]

    @classmethod
    def of(cls, group: Group, level: Level, cost: Callable[[Part], int]) -> _Priced:
        by_kind: dict[Kind, int] = {}
        for part in group.parts:
            by_kind[part.kind] = by_kind.get(part.kind, 0) + cost(part)
        return cls(group, level, sum(by_kind.values()), by_kind)

    @property
    def density(self) -> float:
        return self.group.value / max(self.tokens, 1)

    @property
    def is_dropped(self) -> bool:
        return not self.level.parts

    def over_cap(self, budget: Budget, used: Mapping[Kind, int]) -> Kind | None:
        """The kind whose cap the group would exceed, with `used` tokens taken already."""
        over = (kind for kind, n in self.by_kind.items() if kind in budget.caps and used[kind] + n > budget.caps[kind])
        return next(over, None)

    def reason(self, budget: Budget, slack: int, used: Mapping[Kind, int]) -> str:
        worth = f"value {self.group.value:.2g}"
        if not self.is_dropped:
            return worth if self.level.name == "full" else f"reduced by {self.level.method}; whole it has {worth}"
        if self.group.value == 0:
            return "relevance 0: never taken"
        kind = self.over_cap(budget, used)
        if kind is not None:
            left = max(budget.caps[kind] - used[kind], 0)
            return f"{worth}; needs {self.tokens:,}, {left:,} left of the cap of {kind!r} ({budget.caps[kind]:,})"
        return f"{worth}; needs {self.tokens:,}, {max(slack, 0):,} left"

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


def _entries(priced: Sequence[_Priced], fixed: int, pinned: Mapping[Kind, int], budget: Budget) -> dict[int, int]:
    """Window at which each group is in: everything worth more per token, itself, and what is fixed.

    A group that is worth nothing, or that a cap keeps out at any window, is absent.
    """
    total, used = fixed, dict(pinned)
    entries: dict[int, int] = {}
    for one in sorted(priced, key=lambda one: (-one.density, one.group.index)):
        if one.group.value == 0 or one.over_cap(budget, used) is not None:
            continue
        total += one.tokens
        entries[one.group.index] = total
        for kind, tokens in one.by_kind.items():
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
