"""From planning costs to a prompt that fits, counted exactly.

Planning adds up cached token counts; that is only an estimate, since a tokenizer may join or split at the seams. So
every candidate is rendered, and the capacity of the next choice is corrected by what was off. At the end, what is left
over goes to single groups that may still fit, and to levels that have a size to choose, each proved by rendering it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctxkit.context.costs import Costs
from ctxkit.context.found import Found
from ctxkit.context.group import Group
from ctxkit.context.knapsack import Choice, at_least, choose, single_steps
from ctxkit.context.ladders import Ladders
from ctxkit.context.level import Level
from ctxkit.context.menu import Menu
from ctxkit.context.part import Kind
from ctxkit.context.problem import Levels, Problem

SEAM_TOKENS = 16  # more than a planning cost is off where pieces meet
LEAST_LEVEL_TOKENS = 24  # no reduced level is smaller, about
_LOOKED_AT = 4  # times the capacity: groups beyond that, by estimated density, are not even counted
_ALL_LOOKED_AT = 512  # groups; so few are all counted
_ASKED = 128  # groups whose levels are made, at most
_CORRECTIONS = 12  # of the capacity; two are usual
_TRIES = 12  # of single groups, at the end
_RENDERED_TOKENS = 60_000  # in the tries at the end, in all: large prompts get fewer
_WORTH_STRETCHING = 4  # tokens left over


@dataclass(frozen=True)
class Search:
    """One search: where it starts, and what it may use.

    base: required groups at the level that they have at least, rendered; it fits.
    """

    problem: Problem
    ladders: Ladders
    costs: Costs
    base: Found

    def run(self) -> Found:
        """The best that was found to fit: first with whole groups, then with levels where not everything is in."""
        groups = self._looked_at()
        found = self._best(groups)
        if self.ladders.compressors and not self._all_whole(found):
            asked = self._worth_asking(found)
            if asked:
                self.ladders.ask(asked)
                groups = sorted({group.index: group for group in (*groups, *asked)}.values(), key=lambda g: g.index)
                found = max((self._best(groups), found), key=lambda one: one.value)
                found = self._stretched(found, asked)
        return found

    def _looked_at(self) -> list[Group]:
        """Required groups, and the optional ones that are dense enough, by estimated costs, to come into question."""
        optional = self.problem.optional
        if len(optional) > _ALL_LOOKED_AT:
            values = np.array([self.problem.values[group.index] for group in optional])
            estimates = np.array(self.costs.estimates(optional), np.int64)
            order = np.argsort(-values / estimates, kind="stable")
            room = _LOOKED_AT * self.problem.limit
            enough = max(int(np.searchsorted(np.cumsum(estimates[order]), room)) + 1, _ALL_LOOKED_AT)
            optional = [optional[i] for i in np.sort(order[:enough])]
        self.costs.count(part for group in optional for part in group.parts)
        return sorted([*self.problem.required, *optional], key=lambda group: group.index)

    def _all_whole(self, found: Found) -> bool:
        wanted = len(self.problem.optional) + len(self.problem.required)
        return sum(level.name == "full" for level in found.levels.values()) == wanted

    def _worth_asking(self, found: Found) -> list[Group]:
        """Groups for which a reduced level could beat the price of a token, the worthiest and newest first."""
        values = self.problem.values
        groups = [*self.problem.required, *self.problem.optional]
        sizes = dict(zip((group.index for group in groups), self.costs.estimates(groups), strict=True))
        worthy = [
            group
            for group in groups
            if sizes[group.index] > 2 * LEAST_LEVEL_TOKENS
            and (group.required or values[group.index] / LEAST_LEVEL_TOKENS > found.shadow_price)
        ]
        return sorted(worthy, key=lambda group: (not group.required, -values[group.index], -group.index))[:_ASKED]

    def _best(self, groups: Sequence[Group]) -> Found:
        table = Table.of(self.problem, groups, self.ladders, self.costs)
        return self._filled(self._corrected(table), table)

    def _corrected(self, table: Table) -> Found:
        """Choose, render, correct the capacity by what the estimate was off, until nothing better fits."""
        best, problem = self.base, self.problem
        planned = sum(self.costs.parts(level.parts) for level in best.levels.values())
        # Planning costs are sometimes too high, so the first choice is a hopeful one; its bound holds for all.
        capacity = problem.limit - best.rendering.tokens + planned + SEAM_TOKENS
        bound = 0.0
        caps = table.room_under_caps(best)
        seen: set[bytes] = set()
        for attempt in range(_CORRECTIONS):
            choice = table.chosen(capacity, caps)
            bound = max(bound, choice.bound)
            if choice.picks.tobytes() in seen:
                break
            seen.add(choice.picks.tobytes())
            levels = problem.led_by_user(table.levels(choice.picks))
            rendering = problem.render(levels)
            over, excess = rendering.tokens - problem.limit, problem.over_caps(rendering, levels)
            if over <= 0 and not excess:
                best = self._better(
                    best, Found(levels, rendering, self.value(levels), choice.bound, choice.shadow_price)
                )
                if -over < table.least_step(choice.picks):
                    break
                capacity = table.planned(choice.picks) - over
            else:
                # Doubling from the fourth on ends a search in which each correction uncovers another.
                if over > 0:
                    capacity = table.planned(choice.picks) - over * 2 ** max(attempt - 3, 0)
                caps = table.less(caps, excess)
        return replace(best, bound=max(bound, best.value))

    def _better(self, best: Found, found: Found) -> Found:
        return found if best is self.base or found.value > best.value else best

    def value(self, levels: Levels) -> float:
        """What these levels are worth; rounded once, so that equal sets of values are equal sums."""
        return math.fsum(self.problem.values[index] * level.utility for index, level in levels.items())

    def _tries(self, found: Found) -> int:
        return max(2, min(_TRIES, _RENDERED_TOKENS // max(found.rendering.tokens, 1)))

    def _filled(self, found: Found, table: Table) -> Found:
        """Single steps up that may fit into what is left, densest first, each proved by rendering it."""
        tries = self._tries(found)
        for group, level, tokens in table.steps_from(found.levels):
            if (
                found.levels.get(group.index) is level
                or tokens > self.problem.limit - found.rendering.tokens + SEAM_TOKENS
            ):
                continue
            if not tries:
                break
            tries -= 1
            found = self._tried(found, {**found.levels, group.index: level}) or found
        return found

    def _tried(self, found: Found, levels: Mapping[int, Level]) -> Found | None:
        """These levels rendered, where they fit and are worth more."""
        levels = self.problem.led_by_user(levels)
        value = self.value(levels)
        if value <= found.value:
            return None
        rendering = self.problem.render(levels)
        if not self.problem.fits(rendering, levels):
            return None
        return replace(found, levels=levels, rendering=rendering, value=value, bound=max(found.bound, value))

    def _stretched(self, found: Found, asked: Sequence[Group]) -> Found:
        """What is left over goes to levels that have a size to choose."""
        tries = self._tries(found)
        for group in sorted(asked, key=lambda group: (-self.problem.values[group.index], -group.index)):
            left = self.problem.limit - found.rendering.tokens
            if left < _WORTH_STRETCHING or not tries:
                break
            at = found.levels.get(group.index)
            if at is None or at.name != "full":
                tries -= 1
                found = self._wider(found, group, at, left) or found
        return found

    def _wider(self, found: Found, group: Group, at: Level | None, left: int) -> Found | None:
        """The group at the best size that fits into what is left."""
        level = at if at is not None and at.resize else self._resizable(group)
        if level is None or level.resize is None:
            return None
        overhead = 0 if at else len(group.parts) * self.costs.message_tokens
        target = left - overhead + (self.costs.contents(at) if at else 0)
        for _ in range(3):
            wider = level.resize(target) if target > 0 else None
            if wider is None:
                return None
            better = self._tried(found, {**found.levels, group.index: wider})
            if better:
                return better
            target -= max(target // 64, SEAM_TOKENS // 2)
        return None

    def _resizable(self, group: Group) -> Level | None:
        """The best level of the group that has a size to choose."""
        return next((level for level in reversed(self.ladders.of(group)) if level.resize), None)


@dataclass(frozen=True)
class Table:
    """The menu of some groups, and which level each of its options is."""

    problem: Problem
    groups: Sequence[Group]
    options: Sequence[Level]
    menu: Menu
    kinds: tuple[Kind, ...]

    @classmethod
    def of(cls, problem: Problem, groups: Sequence[Group], ladders: Ladders, costs: Costs) -> Table:
        rungs = [ladders.of(group) for group in groups]
        kinds = problem.limited
        rows = [
            [
                (
                    costs.parts(level.parts),
                    problem.values[group.index] * level.utility,
                    costs.by_kind(level.parts, kinds) if kinds else (),
                )
                for level in levels
            ]
            for group, levels in zip(groups, rungs, strict=True)
        ]
        options = [level for levels in rungs for level in levels]
        return cls(problem, groups, options, Menu.of(rows, len(kinds)), kinds)

    def levels(self, picks: np.ndarray) -> dict[int, Level]:
        chosen = (self.options[pick] for pick in picks)
        return {group.index: level for group, level in zip(self.groups, chosen, strict=True) if level.parts}

    def planned(self, picks: np.ndarray) -> int:
        return int(self.menu.tokens[picks].sum())

    def chosen(self, capacity: int, caps: np.ndarray) -> Choice:
        least = int(self.menu.tokens[self.menu.least].sum())
        menu, floor = self._floored(max(capacity, least), caps)
        choice = choose(menu, max(capacity, least), caps)
        return replace(choice, picks=np.maximum(choice.picks, floor))

    def room_under_caps(self, base: Found) -> np.ndarray:
        """Tokens of each limited kind for these groups: its cap less what pinned parts take, if it has one."""
        used = self.problem.tokens_by_kind(base.rendering)
        planned = self.menu.limited[self.menu.least].sum(axis=0)
        caps = self.problem.budget.caps
        room = [
            caps[kind] - used[kind] + int(planned[i]) if kind in caps else 2**40 for i, kind in enumerate(self.kinds)
        ]
        return np.maximum(np.array(room, np.int64), planned)

    def less(self, caps: np.ndarray, excess: Mapping[Kind, int]) -> np.ndarray:
        taken = np.array([excess.get(kind, 0) for kind in self.kinds], np.int64)
        return np.maximum(caps - taken, self.menu.limited[self.menu.least].sum(axis=0))

    def least_step(self, picks: np.ndarray) -> int:
        """Planning tokens, less the seam, of the cheapest step up; more than anything where all are at the top."""
        steps = single_steps(self.menu, picks)
        return int(steps.tokens.min()) - SEAM_TOKENS if len(steps.tokens) else 2**40

    def steps_from(self, levels: Levels) -> Iterator[tuple[Group, Level, int]]:
        """Every step up from these levels, densest first: group, level, planning tokens."""
        picks = self.menu.least.copy()
        for place, group in enumerate(self.groups):
            level = levels.get(group.index)
            if level is not None:
                low, high = int(self.menu.offsets[place]), int(self.menu.offsets[place + 1])
                picks[place] = next((i for i in range(low, high) if self.options[i] is level), high - 1)
        steps = single_steps(self.menu, picks)
        for group, end, tokens in zip(steps.group, steps.end, steps.tokens, strict=True):
            yield self.groups[group], self.options[end], int(tokens)

    def _floored(self, capacity: int, caps: np.ndarray) -> tuple[Menu, np.ndarray]:
        """The menu in which the kinds with a floor have what they were promised, and the options they have at least."""
        floors, floor = self.problem.budget.floors, self.menu.least.copy()
        if not floors:
            return self.menu, floor
        steps = self.menu.hull()
        used = self._pinned_by_kind()
        left, room = capacity - int(self.menu.tokens[floor].sum()), caps - self.menu.limited[floor].sum(axis=0)
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

    def _pinned_by_kind(self) -> np.ndarray:
        """Tokens of the limited kinds that are in whatever is chosen."""
        rendering = self.problem.render({})
        used = self.problem.tokens_by_kind(rendering)
        return np.array([used[kind] for kind in self.kinds], np.int64)
