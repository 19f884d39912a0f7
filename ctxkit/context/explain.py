"""From what was chosen to one Decision per part, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.budget import Budget
from ctxkit.context.group import Group
from ctxkit.context.level import Handle, Level
from ctxkit.context.part import Part
from ctxkit.context.plan import Decision
from ctxkit.protocols import Rendering


def decide(
    groups: Sequence[Group],
    chosen: Mapping[int, Level],
    rendering: Rendering,
    budget: Budget,
    base_tokens: int,
    cost: Callable[[Part], int],
) -> tuple[Decision, ...]:
    """One decision per part, in the order the parts were given.

    chosen: level of every group, by group index. base_tokens: exact tokens of the pinned parts alone.
    cost: planning tokens of an unpinned part, whole.
    """
    priced = {
        group.index: _Priced(group, chosen[group.index], sum(cost(part) for part in group.parts))
        for group in groups
        if not group.pinned
    }
    entries = _entries(list(priced.values()), base_tokens + budget.reserve_tokens)
    slack = budget.prompt_tokens - rendering.tokens
    decisions: dict[int, Decision] = {}
    for group in groups:
        for position, part in zip(group.positions, group.parts, strict=True):
            tokens = rendering.by_owner.get(part.id, 0)
            if group.pinned:
                reason = "pinned" if part.pinned else "in the same group as a pinned part"
                decisions[position] = Decision(part, "full", "original", tokens, tokens, reason)
            else:
                one = priced[group.index]
                reason = one.reason(budget, slack)
                decisions[position] = one.decision(part, tokens, cost(part), reason, entries[group.index])
    return _numbered([decisions[position] for position in sorted(decisions)])


@dataclass(frozen=True, slots=True)
class _Priced:
    """An unpinned group, the level it got and what it would cost whole."""

    group: Group
    level: Level
    tokens: int

    @property
    def density(self) -> float:
        return self.group.value / max(self.tokens, 1)

    @property
    def is_dropped(self) -> bool:
        return not self.level.parts

    def reason(self, budget: Budget, slack: int) -> str:
        worth = f"value {self.group.value:.2g}"
        if not self.is_dropped:
            return worth if self.level.name == "full" else f"reduced by {self.level.method}; whole it has {worth}"
        if self.group.value == 0:
            return "relevance 0: never taken"
        if self.tokens > slack:
            return f"{worth}; needs {self.tokens:,}, {max(slack, 0):,} left"
        capped = [part.kind for part in self.group.parts if part.kind in budget.caps]
        return f"{worth}; cap of {capped[0]!r} ({budget.caps[capped[0]]:,}) reached" if capped else worth

    def decision(self, part: Part, tokens: int, full_tokens: int, reason: str, enters_at: int) -> Decision:
        handle = next((handle for handle in self.level.handles if handle.part_id == part.id), None)
        return Decision(
            part,
            self.level.name,
            self.level.method,
            tokens,
            full_tokens,
            reason,
            enters_at=enters_at if self.is_dropped and self.group.value > 0 else None,
            handle=handle or (Handle.of_whole(part) if self.is_dropped else None),
        )


def _entries(priced: Sequence[_Priced], fixed: int) -> dict[int, int]:
    """Window at which each group is in: everything worth more per token, itself, and what is fixed."""
    total = fixed
    entries: dict[int, int] = {}
    for one in sorted(priced, key=lambda one: (-one.density, one.group.index)):
        total += one.tokens
        entries[one.group.index] = total
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
