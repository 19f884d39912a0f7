"""Ladders: the levels that each group could be sent at, made only for groups that a level could help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctxkit.context.costs import Costs
from ctxkit.context.group import Group
from ctxkit.context.level import DROPPED, Compressor, JointCompressor, Level, LevelRequest, Proposes, full


class Ladders:
    """The levels of each group, cheapest first. A compressor is asked at most once per group."""

    def __init__(self, costs: Costs, compressors: Sequence[Compressor], request: LevelRequest) -> None:
        self.compressors = tuple(compressors)
        self._costs = costs
        self._request = request
        self._full: dict[int, Level] = {}
        self._reduced: dict[int, tuple[Level, ...]] = {}
        self._relying: dict[int, tuple[Level, ...]] = {}

    def of(self, group: Group) -> tuple[Level, ...]:
        """What is known so far and needs no other part, the dropped level first unless the group is required."""
        reduced = self._reduced.get(group.index, ())
        whole = self.whole(group)
        return (*reduced, whole) if group.required else (DROPPED, *reduced, whole)

    def relying(self, group: Group) -> tuple[Level, ...]:
        """The levels known so far that can be read only beside other parts, in the order in which they were made."""
        return self._relying.get(group.index, ())

    def with_relying(self, group: Group, relying: Sequence[Level]) -> tuple[Level, ...]:
        """`of` and these levels, without those that another level beats."""
        if not relying:
            return self.of(group)
        reduced = self._undominated(group, [*self._reduced.get(group.index, ()), *relying])
        return (*self.of(group)[: not group.required], *reduced, self.whole(group))

    def whole(self, group: Group) -> Level:
        if group.index not in self._full:
            self._full[group.index] = full(group)
        return self._full[group.index]

    def ask(self, groups: Iterable[Group]) -> None:
        """Have the levels of these groups made, where that was not done yet."""
        new = [group for group in groups if group.index not in self._reduced]
        if not new:
            return
        made: list[list[Level]] = [[] for _ in new]
        for compressor in self.compressors:
            for levels, more in zip(made, self._made(compressor, new), strict=True):
                levels += more
        for group, levels in zip(new, made, strict=True):
            self._costs.count(part for level in levels for part in level.parts)
            self._reduced[group.index] = self._undominated(group, [one for one in levels if not one.needs])
            limit = self._costs.parts(group.parts)
            relying = (one for one in levels if one.needs and self._costs.parts(one.parts) < limit)
            self._relying[group.index] = tuple(relying)

    def proposed(self) -> list[Group]:
        """Groups that a compressor knows it can help much."""
        proposing = (one for one in self.compressors if isinstance(one, Proposes))
        return [group for one in proposing for group in one.proposed(self._request)]

    def _made(self, compressor: Compressor, groups: Sequence[Group]) -> Iterable[Iterable[Level]]:
        if isinstance(compressor, JointCompressor):
            return compressor.joint_levels(groups, self._request)
        return (compressor.levels(group, self._request) for group in groups)

    def _undominated(self, group: Group, levels: Sequence[Level]) -> tuple[Level, ...]:
        """Levels that cost less than the whole group, and more than any other level worth as much; cheapest first."""
        priced = sorted(
            ((self._costs.parts(level.parts), -level.utility, i) for i, level in enumerate(levels) if level.parts)
        )
        limit = self._costs.parts(group.parts)
        kept: list[Level] = []
        best = 0.0
        for tokens, negative_utility, i in priced:
            if tokens < limit and -negative_utility > best:
                best = -negative_utility
                kept.append(levels[i])
        return tuple(kept)
