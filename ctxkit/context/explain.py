"""From what was chosen to one Decision per part, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.costs import Costs
from ctxkit.context.decision import Decision
from ctxkit.context.group import Group
from ctxkit.context.level import DROPPED, Handle, Level, full
from ctxkit.context.part import Kind, Part
from ctxkit.context.problem import Levels, Problem
from ctxkit.protocols import Rendering


def decide(problem: Problem, levels: Levels, rendering: Rendering, costs: Costs) -> tuple[Decision, ...]:
    """One decision per part, in the order the parts were given."""
    costs.count(problem.parts)
    explained = _Explained(problem, rendering, costs)
    entries = explained.entries(levels)
    decisions: dict[int, Decision] = {}
    for group in problem.groups:
        level = full(group) if problem.is_fixed(group) else levels.get(group.index, DROPPED)
        sent = {part.id: part for part in level.parts}
        reason = explained.reason(group, level)
        for position, part in zip(group.positions, group.parts, strict=True):
            made = _Made(part, sent.get(part.id), level, rendering.by_owner.get(part.id, 0), costs.part(part))
            decisions[position] = made.decision(reason, entries.get(group.index))
    return _numbered([decisions[position] for position in range(len(problem.parts))])


@dataclass(frozen=True, slots=True)
class _Made:
    """A part, what is sent of it (None: nothing), and its tokens as sent and whole."""

    part: Part
    sent: Part | None
    level: Level
    tokens: int
    full_tokens: int

    def decision(self, reason: str, enters_at: int | None) -> Decision:
        if self.sent is self.part:
            if self.part.pinned:
                reason = "pinned"
            elif self.level.name != "full":
                reason = "whole in a reduced group"
            return Decision(self.part, "full", "original", self.tokens, self.full_tokens, reason, sent=self.part)
        name, method = (self.level.name, self.level.method) if self.sent else (DROPPED.name, DROPPED.method)
        handle = next((handle for handle in self.level.handles if handle.part_id == self.part.id), None)
        return Decision(
            self.part,
            name,
            method,
            self.tokens,
            self.full_tokens,
            reason,
            enters_at=None if self.sent else enters_at,
            handle=handle or Handle.of_whole(self.part),
            sent=self.sent,
        )


@dataclass(frozen=True)
class _Explained:
    problem: Problem
    rendering: Rendering
    costs: Costs

    def reason(self, group: Group, level: Level) -> str:
        problem = self.problem
        value = problem.values[group.index]
        worth = f"value {value:.2g}"
        if problem.is_fixed(group):
            return "in the same group as a pinned part" if group.pinned else "asked for"
        if level.parts:
            return worth if level.name == "full" else f"reduced by {level.method}; whole it has {worth}"
        if value <= 0:
            return "relevance 0: never taken"
        if value < problem.least_value:
            return f"{worth}, less than the least asked for ({problem.least_value:.2g})"
        return f"{worth}; {self._what_is_missing(group)}"

    def _what_is_missing(self, group: Group) -> str:
        tokens = self.costs.parts(group.parts)
        used = self.problem.tokens_by_kind(self.rendering) if self.problem.budget.caps else {}
        kind = self._over_cap(group, used)
        if kind is not None:
            cap = self.problem.budget.caps[kind]
            return f"needs {tokens:,}, {max(cap - used[kind], 0):,} left of the cap of {kind!r} ({cap:,})"
        return f"needs {tokens:,}, {max(self.problem.limit - self.rendering.tokens, 0):,} left"

    def _over_cap(self, group: Group, used: Mapping[Kind, int]) -> Kind | None:
        """The kind whose cap the group would exceed, with `used` tokens taken already."""
        caps = self.problem.budget.caps
        if not caps:
            return None
        by_kind = dict(zip(caps, self.costs.by_kind(group.parts, tuple(caps)), strict=True))
        return next((kind for kind, n in by_kind.items() if n and used[kind] + n > caps[kind]), None)

    def entries(self, levels: Levels) -> dict[int, int]:
        """Window at which each dropped group is in, about: everything worth more per token, itself, what is fixed.

        A group that a cap keeps out at any window is absent.
        """
        problem, costs = self.problem, self.costs
        fixed = (part for group in problem.groups if problem.is_fixed(group) for part in group.parts)
        used = dict.fromkeys(problem.budget.caps, 0)
        total = problem.budget.reserve_tokens + self.rendering.tokens
        for part in fixed:
            if part.kind in used:
                used[part.kind] += self.rendering.by_owner.get(part.id, 0)
        tokens = {group.index: costs.parts(group.parts) for group in problem.optional}
        total -= sum(self.costs.parts(level.parts) for level in levels.values())
        entries: dict[int, int] = {}
        out_at = problem.budget.window_tokens + 1  # it is not in now, whatever the estimate says
        for group in sorted(problem.optional, key=lambda group: (-self._density(group, tokens), group.index)):
            if self._over_cap(group, used) is not None:
                continue
            total += tokens[group.index]
            entries[group.index] = max(total, out_at)
            for kind in used:
                used[kind] += costs.by_kind(group.parts, (kind,))[0]
        return entries

    def _density(self, group: Group, tokens: Mapping[int, int]) -> float:
        return self.problem.values[group.index] / max(tokens[group.index], 1)


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
