"""From planning costs to a prompt that fits, counted exactly.

Planning adds up cached token counts; that is only an estimate, since a tokenizer may join or split at the seams. So
every candidate is rendered, and the capacity of the next choice is corrected by what was off. At the end, what is left
over goes to single groups that may still fit, and to levels that have a size to choose, each proved by rendering it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctxkit.context.costs import SEAM_TOKENS, Costs
from ctxkit.context.found import Found
from ctxkit.context.group import Group
from ctxkit.context.knapsack import Choice
from ctxkit.context.ladders import Ladders
from ctxkit.context.level import Level
from ctxkit.context.needs import unmet
from ctxkit.context.problem import Levels, Problem
from ctxkit.context.standing import Stands
from ctxkit.context.table import Table
from ctxkit.context.typical import LEAST_REDUCIBLE_TOKENS, typical

LEAST_LEVEL_TOKENS = 2  # no reduced level is smaller, about
_LOOKED_AT = 3  # times the capacity: groups beyond that, by estimated density, are not even counted
_ALL_LOOKED_AT = 512  # groups; so few are all counted
_ASK_ALL = 16  # groups; so few are all asked for their levels
_ASKED = 128  # groups whose levels are made, at most
_CORRECTIONS = 24  # of the capacity; two are usual
_SMALL_STEPS = 14  # down, where costs were measured
_TRIES = 12  # of single groups, at the end
_SWAPS_PER_TRY = 4
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
        """The best that was found to fit. Levels are made only where not everything is in whole."""
        groups = self._looked_at()
        table = self._table(groups)
        choice = table.chosen(table.capacity, table.room_under_caps())
        best = self._best(table) if self._all_whole(table.levels(choice.picks)) else None
        if best is not None and self._all_whole(best.levels):
            return best
        asked = self._worth_asking(choice, table)
        if not asked:
            return best or self._best(table)
        self.ladders.ask(asked)
        groups = sorted({group.index: group for group in (*groups, *asked)}.values(), key=lambda group: group.index)
        return self._stretched(self._best_of(groups), asked)

    def _best_of(self, groups: Sequence[Group]) -> Found:
        """The best choice; where levels rely on other groups, with the best of those standing."""
        if not any(map(self.ladders.relying, groups)):
            return self._best(self._table(groups))
        stands = Stands(self.problem, self.ladders, self.costs, self.base, groups)
        ranked = stands.ranked()
        # Measuring costs takes longest, so that is done for one of them only.
        tables = [stands.table(stand, measurable=False) for stand in ranked.stands]
        tried = [self._filled(self._corrected(table), table) for table in tables]
        best = max(range(len(tried)), key=lambda place: tried[place].value)
        last = self._best(stands.table(ranked.stands[best], measurable=True))
        found = max(last, tried[best], key=lambda one: one.value)
        return replace(found, bound=max(ranked.bound, found.value))

    def _table(self, groups: Sequence[Group]) -> Table:
        return Table.of(self.problem, groups, self.ladders.of, self.costs, self.base)

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

    def _all_whole(self, levels: Levels) -> bool:
        wanted = len(self.problem.optional) + len(self.problem.required)
        return sum(level.name == "full" for level in levels.values()) == wanted

    def _worth_asking(self, choice: Choice, table: Table) -> list[Group]:
        """Groups that a reduced level could help, the worthiest and newest first.

        Those that could beat the price of a token; and, into what the choice leaves over, as many others as would go.
        """
        if not self.ladders.compressors:
            return []
        values = self.problem.values
        candidates = [*self.problem.required, *self.problem.optional]
        if len(candidates) > _ASK_ALL:
            likely = self._likely_reduced(table)
            proposed = {group.index: group for group in self.ladders.proposed()}
            allowed = [group for group in candidates if group.index in proposed and group not in likely]
            return [*likely, *self._worthiest_first(allowed)][:_ASKED]
        price = choice.shadow_price * LEAST_LEVEL_TOKENS
        worthy = sum(group.required or values[group.index] > price for group in candidates)
        left = max(table.capacity - table.planned(choice.picks), 0)
        return self._worthiest_first(candidates)[: worthy + left // LEAST_LEVEL_TOKENS]

    def _likely_reduced(self, table: Table) -> list[Group]:
        """Groups that would be reduced if levels were what they are on average; among many, only these are asked."""
        sizes = [self.costs.parts(group.parts) for group in table.groups]
        if max(sizes) < LEAST_REDUCIBLE_TOKENS:
            return []
        likely = typical(table.groups, sizes, self.problem.values, table.capacity)
        return self._worthiest_first(likely)[:_ASKED]

    def _worthiest_first(self, groups: Sequence[Group]) -> list[Group]:
        """Required groups before the others, the newer of two equals first."""
        values = self.problem.values
        return sorted(groups, key=lambda group: (not group.required, -values[group.index], -group.index))

    def _best(self, table: Table) -> Found:
        found = self._filled(self._corrected(table), table)
        return self._swapped(found, table) if table.measured and not self.problem.budget.floors else found

    def _corrected(self, table: Table) -> Found:
        """Choose, render, correct the capacity by what the estimate was off, until nothing better fits."""
        best, problem = table.base, self.problem
        # Planning costs are sometimes too high, so the first choice is a hopeful one; its bound holds for all.
        capacity = table.capacity + table.seam_tokens
        bound = 0.0
        caps = table.room_under_caps()
        seen: set[bytes] = set()
        for attempt in range(_CORRECTIONS):
            choice = table.chosen(capacity, caps)
            bound = max(bound, choice.bound)
            if choice.picks.tobytes() in seen:
                break
            seen.add(choice.picks.tobytes())
            levels = self._readable(table.levels(choice.picks))
            rendering = problem.render(levels)
            over, excess = rendering.tokens - problem.limit, problem.over_caps(rendering, levels)
            if over <= 0 and not excess:
                found = Found(levels, rendering, problem.value(levels), choice.bound, choice.shadow_price)
                best = found if best is table.base or found.value > best.value else best
                if -over < table.least_step(choice.picks):
                    break
                capacity = table.planned(choice.picks) - over
            else:
                # Doubling from the fourth on ends a search in which each correction uncovers another.
                if over > 0:
                    capacity = table.planned(choice.picks) - self._step_down(table, over, attempt)
                caps = table.less(caps, excess)
        return replace(best, bound=max(bound, best.value))

    def _step_down(self, table: Table, over: int, attempt: int) -> int:
        """By how much the next choice is planned smaller than one that was `over` too large.

        With measured costs the next best choice may fit already: a small step. Doubling from the fourth step on ends a
        search in which each correction uncovers another.
        """
        if table.measured and attempt < _SMALL_STEPS:
            return max(over - SEAM_TOKENS, 1)
        return over * 2 ** max(attempt - 3 - _SMALL_STEPS * table.measured, 0)

    def _readable(self, levels: Levels) -> Levels:
        """Led by the user, and without the levels that then miss what they need."""
        levels = self.problem.led_by_user(levels)
        while missing := unmet(self.problem, levels):
            least = {group.index: self.ladders.of(group)[0] for group in self.problem.required}
            kept = {index: level for index, level in levels.items() if index not in missing}
            kept.update({index: least[index] for index in missing if index in least})
            levels = self.problem.led_by_user(kept)
        return levels

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

    def _swapped(self, found: Found, table: Table) -> Found:
        """Other choices that are worth more and may fit, the worthiest first, each proved by rendering it.

        Where pieces meet, costs depend on the neighbours; this settles what planning costs cannot.
        """
        renders = self._tries(found) * _SWAPS_PER_TRY
        while renders:
            changed = table.better(found.levels, self.problem.limit - found.rendering.tokens, renders)
            renders -= len(changed)
            tried = (self._tried(found, levels) for levels in changed)
            better = next((one for one in tried if one is not None), None)
            if better is None:
                break
            found = better
        return found

    def _tried(self, found: Found, levels: Mapping[int, Level]) -> Found | None:
        """These levels rendered, where they fit, can be read and are worth more."""
        levels = self.problem.led_by_user(levels)
        value = self.problem.value(levels)
        if value <= found.value or unmet(self.problem, levels):
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
