"""Table: the menu of some groups, and which level each of its options is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np

from ctxkit.context.compose import opens_message
from ctxkit.context.costs import SEAM_TOKENS, Costs
from ctxkit.context.found import Found
from ctxkit.context.group import Group
from ctxkit.context.knapsack import Choice, at_least, choose, single_steps
from ctxkit.context.lead import Lead
from ctxkit.context.level import Level
from ctxkit.context.menu import Menu, Row
from ctxkit.context.part import Kind
from ctxkit.context.problem import Levels, Problem

MESSAGE_SEAM_TOKENS = 3  # where every part has a message of its own
_MEASURED = 96  # options, at most, whose cost is measured by rendering them instead of adding up counts
_MEASURED_TOKENS = 40_000  # rendered for that, at most, in all
_NO_CAP = 2**40
_ROUNDING = 1e-12
_EVERY_CHOICE = 20_000  # choices, at most, to look at all of them


@dataclass(frozen=True)
class Table:
    """Groups with their options. base: the required groups at some level, rendered; it fits.

    measured: whether the options' costs were measured, each by a rendering of its own.
    """

    problem: Problem
    groups: Sequence[Group]
    options: Sequence[Level]
    menu: Menu
    kinds: tuple[Kind, ...]
    base: Found
    measured: bool

    @classmethod
    def of(
        cls,
        problem: Problem,
        groups: Sequence[Group],
        levels: Callable[[Group], Sequence[Level]],
        costs: Costs,
        base: Found,
        measurable: bool = True,
    ) -> Table:
        """levels: of a group, cheapest first, each worth more than the one before."""
        rungs = [levels(group) for group in groups]
        count = sum(map(len, rungs))
        few = 0 < count <= _MEASURED and count * (base.rendering.tokens + 1) <= _MEASURED_TOKENS
        measured = measurable and few
        pricing = _Pricing(problem, costs, base, measured)
        priced = [pricing.rows(group, levels) for group, levels in zip(groups, rungs, strict=True)]
        options = [level for rows in priced for _, level in rows]
        menu = Menu.of([[row for row, _ in rows] for rows in priced], len(problem.limited))
        return cls(problem, groups, options, menu, problem.limited, base, measured)

    @property
    def seam_tokens(self) -> int:
        """By how much planning costs may be too high."""
        shared = any(not opens_message(part) for group in self.groups for part in group.parts)
        return SEAM_TOKENS if shared else MESSAGE_SEAM_TOKENS

    @cached_property
    def capacity(self) -> int:
        """Planning tokens for the groups to choose from: the limit less what the base takes beyond them."""
        picks = self.picks(self.base.levels)
        planned = sum(int(self.menu.tokens[pick]) for pick in picks)
        return self.problem.limit - self.base.rendering.tokens + planned

    def levels(self, picks: np.ndarray) -> dict[int, Level]:
        chosen = (self.options[pick] for pick in picks)
        return {group.index: level for group, level in zip(self.groups, chosen, strict=True) if level.parts}

    def picks(self, levels: Levels) -> np.ndarray:
        """The options of these levels; of a level that is not on the menu, the next one up."""
        picks = self.menu.least.copy()
        for place, group in enumerate(self.groups):
            level = levels.get(group.index)
            low, high = int(self.menu.offsets[place]), int(self.menu.offsets[place + 1])
            if level is not None:
                picks[place] = next((i for i in range(low, high) if self.options[i] is level), high - 1)
            elif not group.required:
                # A part that costs nothing has no dropped option: there is no reason to leave it out.
                picks[place] = next((i for i in range(low, high) if not self.options[i].parts), low)
        return picks

    def planned(self, picks: np.ndarray) -> int:
        return int(self.menu.tokens[picks].sum())

    def chosen(self, capacity: int, caps: np.ndarray) -> Choice:
        """The best choice that a provider takes: what the user said leads."""
        least = self.planned(self.menu.least)
        capacity = max(capacity, least)
        menu, floor = self._floored(capacity, caps)
        free = self._chosen(menu, floor, capacity, caps)
        fault = self._lead.fault(free.picks, self._is_in)
        if fault is None:
            return free
        tried = [self._chosen(self._without(menu, fault.banned), floor, capacity, caps)]
        for group in fault.leaders:
            raised = floor.copy()
            raised[group] = max(floor[group], self.menu.offsets[group] + 1)
            if self.planned(raised) <= capacity and (self.menu.limited[raised].sum(axis=0) <= caps).all():
                tried.append(self._chosen(at_least(self.menu, raised), raised, capacity, caps))
        good = [choice for choice in tried if self._lead.fault(choice.picks, self._is_in) is None]
        best = max(good or tried[:1], key=lambda choice: choice.value)
        return replace(best, bound=free.bound, shadow_price=free.shadow_price)

    def room_under_caps(self) -> np.ndarray:
        """Tokens of each limited kind for these groups: its cap less what pinned parts take, if it has one."""
        planned = self.menu.limited[self.menu.least].sum(axis=0)
        caps = self.problem.budget.caps
        room = [caps[kind] - pinned if kind in caps else _NO_CAP for kind, pinned in self._pinned_by_kind.items()]
        return np.maximum(np.array(room, np.int64), planned)

    def less(self, caps: np.ndarray, excess: Mapping[Kind, int]) -> np.ndarray:
        taken = np.array([excess.get(kind, 0) for kind in self.kinds], np.int64)
        return np.maximum(caps - taken, self.menu.limited[self.menu.least].sum(axis=0))

    def least_step(self, picks: np.ndarray) -> int:
        """Planning tokens, less the seam, of the cheapest step up; more than anything where all are at the top."""
        steps = single_steps(self.menu, picks)
        return int(steps.tokens.min()) - SEAM_TOKENS if len(steps.tokens) else _NO_CAP

    def steps_from(self, levels: Levels) -> Iterator[tuple[Group, Level, int]]:
        """Every step up from these levels, densest first: group, level, planning tokens."""
        steps = single_steps(self.menu, self.picks(levels))
        for group, end, tokens in zip(steps.group, steps.end, steps.tokens, strict=True):
            yield self.groups[group], self.options[end], int(tokens)

    def better(self, levels: Levels, left: int, most: int) -> list[dict[int, Level]]:
        """Choices that are worth more and, give or take the seams, fit; the worthiest first.

        All choices where there are few, else those that change one or two groups. left: tokens that `levels` leaves.
        """
        picks = self.picks(levels)
        every = prod(np.diff(self.menu.offsets).tolist()) <= _EVERY_CHOICE
        made = self._every_choice() if every else self._neighbours(picks)
        gain = self.menu.values[made].sum(axis=1) - self.menu.values[picks].sum()
        tokens = self.menu.tokens[made].sum(axis=1) - self.planned(picks)
        hopeful = np.flatnonzero((gain > _ROUNDING) & (tokens <= left + SEAM_TOKENS))
        order = hopeful[np.argsort(-gain[hopeful], kind="stable")][:most]
        return [self.levels(made[i]) for i in order]

    def _every_choice(self) -> np.ndarray:
        """int64 [choices, groups]."""
        ranges = [np.arange(low, high) for low, high in pairwise(self.menu.offsets)]
        return np.stack([axis.ravel() for axis in np.meshgrid(*ranges, indexing="ij")], axis=1)

    def _neighbours(self, picks: np.ndarray) -> np.ndarray:
        """Picks with one or two groups changed, int64 [choices, groups]."""
        owner, count = self.menu.owner, len(self.menu.tokens)
        # One option of each of two groups; an option paired with itself stands for a change of its group alone.
        first, second = np.nonzero(np.triu(owner[:, None] != owner[None, :]) | np.eye(count, dtype=bool))
        made = np.tile(picks, (len(first), 1))
        rows = np.arange(len(first))
        made[rows, owner[first]], made[rows, owner[second]] = first, second
        return made

    @cached_property
    def _lead(self) -> Lead:
        return Lead.of(self.problem, self.groups)

    def _is_in(self, pick: int) -> bool:
        return bool(self.options[pick].parts)

    def _chosen(self, menu: Menu, floor: np.ndarray, capacity: int, caps: np.ndarray) -> Choice:
        choice = choose(menu, capacity, caps)
        return replace(choice, picks=np.maximum(choice.picks, floor))

    def _without(self, menu: Menu, banned: Sequence[int]) -> Menu:
        """The menu on which the banned groups cost more than there is."""
        out = np.isin(menu.owner, banned) & ~np.isin(np.arange(len(menu.tokens)), menu.least)
        return replace(menu, tokens=np.where(out, _NO_CAP, menu.tokens), values=np.where(out, 0.0, menu.values))

    def _floored(self, capacity: int, caps: np.ndarray) -> tuple[Menu, np.ndarray]:
        """The menu in which the kinds with a floor have what they were promised, and the options they have at least."""
        floors, floor = self.problem.budget.floors, self.menu.least.copy()
        if not floors:
            return self.menu, floor
        steps = self.menu.hull()
        used = np.array(list(self._pinned_by_kind.values()), np.int64) + self.menu.limited[floor].sum(axis=0)
        left, room = capacity - self.planned(floor), caps - self.menu.limited[floor].sum(axis=0)
        for kind, promised in floors.items():
            column = self.kinds.index(kind)
            for i in range(len(steps.tokens)):
                if used[column] >= promised:
                    break
                group = steps.group[i]
                fits = steps.tokens[i] <= left and bool((steps.limited[i] <= room).all())
                if fits and floor[group] == steps.start[i] and steps.limited[i, column] > 0:
                    floor[group] = steps.end[i]
                    left, room, used = left - int(steps.tokens[i]), room - steps.limited[i], used + steps.limited[i]
        return at_least(self.menu, floor), floor

    @cached_property
    def _pinned_by_kind(self) -> dict[Kind, int]:
        """Tokens of each limited kind that the pinned parts take."""
        if not self.kinds:
            return {}
        used = self.problem.tokens_by_kind(self.problem.render({}))
        return {kind: used[kind] for kind in self.kinds}


@dataclass(frozen=True)
class _Pricing:
    """What each level adds to the prompt: the sum of its parts' counts, or measured on top of the base."""

    problem: Problem
    costs: Costs
    base: Found
    measured: bool

    def rows(self, group: Group, levels: Sequence[Level]) -> list[tuple[Row, Level]]:
        """Cheapest first, each worth more than the one before."""
        value, kinds = self.problem.values[group.index], self.problem.limited
        rows = [
            ((self._tokens(group, level), value * level.utility, self._by_kind(level, kinds)), level)
            for level in levels
        ]
        if not self.measured:
            return rows
        kept: list[tuple[Row, Level]] = []
        for row, level in sorted(rows, key=lambda one: (one[0][0], -one[0][1])):
            if not kept or row[1] > kept[-1][0][1] or row[0] == kept[0][0][0]:
                kept.append((row, level))
        return kept

    def _by_kind(self, level: Level, kinds: tuple[Kind, ...]) -> tuple[int, ...]:
        return self.costs.by_kind(level.parts, kinds) if kinds else ()

    def _tokens(self, group: Group, level: Level) -> int:
        if not self.measured:
            return self.costs.parts(level.parts)
        others = {index: one for index, one in self.base.levels.items() if index != group.index}
        levels = {**others, group.index: level} if level.parts else others
        return self.problem.render_bare(levels).tokens - self._bare_base

    @cached_property
    def _bare_base(self) -> int:
        return self.problem.render_bare(self.base.levels).tokens
