"""Standing: what had best stand exactly where levels rely on other groups, so that a search can go on from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.costs import Costs
from ctxkit.context.footing import Chains, Footing, Standing
from ctxkit.context.found import Found
from ctxkit.context.group import Group
from ctxkit.context.ladders import Ladders
from ctxkit.context.level import Level
from ctxkit.context.problem import Levels, Problem
from ctxkit.context.table import Table

_PRICES = 4  # tried from each price that a knapsack gives
_SEARCHED = 3  # of the stands, those that promise most
_SMALLER = 0.8  # of the room, where the bases that were chosen for it do not fit


@dataclass(frozen=True)
class Stand:
    """What stands, and the prompt of that and of what must be in; it fits. promise: value of the choice beside it."""

    footing: Footing
    base: Found
    promise: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """Stands, the one that promises most first. bound: no choice is worth more, whatever stands."""

    stands: Sequence[Stand]
    bound: float


@dataclass(frozen=True)
class Stands:
    """base: as of a search. groups: those that there is a choice for."""

    problem: Problem
    ladders: Ladders
    costs: Costs
    base: Found
    groups: Sequence[Group]

    def table(self, stand: Stand, *, measurable: bool) -> Table:
        """What there is to choose where this stands."""
        return self._table(stand.footing.levels, stand.base, measurable=measurable)

    def ranked(self) -> Ranked:
        """The best with nothing standing, and with what had best stand at several prices of a token."""
        free = self._table(self._every_level, self.base, measurable=False)
        hopeful = free.chosen(free.capacity + free.seam_tokens, free.room_under_caps())
        tried: list[Stand] = []
        seen: list[Standing] = []
        bare = Stand(Footing(self.problem, self.ladders), self.base)
        for price in (hopeful.shadow_price, self._try(bare, tried)):
            self._follow(price, free.capacity, tried, seen)
        return Ranked(sorted(tried, key=lambda one: -one.promise)[:_SEARCHED], hopeful.bound)

    def _follow(self, price: float, room: int, tried: list[Stand], seen: list[Standing]) -> None:
        """What stands sets the price of a token, and the price what had best stand; a few rounds of that."""
        chains = Chains(self.problem, self.ladders, self.costs, self.groups)
        for _ in range(_PRICES):
            footing = chains.footing(price, room)
            if not footing.standing:
                return
            base = None if footing.standing in seen else self._based_on(footing)
            seen.append(footing.standing)
            if base is None:
                room = int(room * _SMALLER)
            else:
                price = self._try(Stand(footing, base), tried)

    def _try(self, stand: Stand, tried: list[Stand]) -> float:
        """Note what the choice with this standing promises; the price of a token in it."""
        table = self.table(stand, measurable=False)
        # As hopeful as a search begins: planning costs are sometimes too high.
        choice = table.chosen(table.capacity + table.seam_tokens, table.room_under_caps())
        tried.append(replace(stand, promise=choice.value))
        return choice.shadow_price

    def _table(self, levels: Callable[[Group], Sequence[Level]], base: Found, *, measurable: bool = True) -> Table:
        return Table.of(self.problem, self.groups, levels, self.costs, base, measurable)

    def _every_level(self, group: Group) -> Sequence[Level]:
        return self.ladders.with_relying(group, self.ladders.relying(group))

    def _based_on(self, footing: Footing) -> Found | None:
        """What must be in and what stands, rendered, with someone of the user before it; None where it does not fit."""
        levels = self._led({**self.base.levels, **footing.standing})
        if levels is None:
            return None
        rendering = self.problem.render(levels)
        if not self.problem.fits(rendering, levels):
            return None
        return Found(levels, rendering, self.problem.value(levels))

    def _led(self, levels: Levels) -> Levels | None:
        """With the nearest group of the user before it, where an answer or a tool would lead."""
        if len(self.problem.led_by_user(levels)) == len(levels):
            return levels
        first = min(self.problem.groups[index].positions[0] for index in levels)
        ahead = (one for one in reversed(self.groups) if one.positions[0] < first and one.parts[0].role == "user")
        for group in ahead:
            led = {group.index: self.ladders.whole(group), **levels}
            return led if len(self.problem.led_by_user(led)) == len(led) else None
        return None
