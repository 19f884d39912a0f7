"""Ladders: the levels that each group could be sent at, made only for groups that a level could help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctxkit.context.costs import Costs
from ctxkit.context.group import Group
from ctxkit.context.level import DROPPED, Compressor, Level, LevelRequest, full


class Ladders:
    """The levels of each group, cheapest first. A compressor is asked at most once per group."""

    def __init__(self, costs: Costs, compressors: Sequence[Compressor], request: LevelRequest) -> None:
        self.compressors = tuple(compressors)
        self._costs = costs
        self._request = request
        self._full: dict[int, Level] = {}
        self._reduced: dict[int, tuple[Level, ...]] = {}

    def of(self, group: Group) -> tuple[Level, ...]:
        """What is known so far, the dropped level first unless the group is required."""
        reduced = self._reduced.get(group.index, ())
        whole = self.whole(group)
        return (*reduced, whole) if group.required else (DROPPED, *reduced, whole)

    def whole(self, group: Group) -> Level:
        if group.index not in self._full:
            self._full[group.index] = full(group)
        return self._full[group.index]

    def ask(self, groups: Iterable[Group]) -> None:
        """Have the levels of these groups made, where that was not done yet."""
        for group in groups:
            if group.index not in self._reduced:
                self._reduced[group.index] = self._made(group)

    def _made(self, group: Group) -> tuple[Level, ...]:
        """Levels that cost less than the whole group, and more than any other level worth as much; cheapest first."""
        levels = [level for one in self.compressors for level in one.levels(group, self._request)]
        self._costs.count(part for level in levels for part in level.parts)
        priced = sorted(
            ((self._costs.parts(level.parts), -level.utility, i) for i, level in enumerate(levels) if level.parts)
        )
        limit = self._costs.parts(group.parts)
        made: list[Level] = []
        best = 0.0
        for tokens, negative_utility, i in priced:
            if tokens < limit and -negative_utility > best:
                best = -negative_utility
                made.append(levels[i])
        return tuple(made)
