"""Footing: which groups stand exactly, so that others can be sent as what they differ by.

A level with needs is cheap only beside its base, and the knapsack knows nothing of that. So the bases are chosen first:
at the price of a token, along each chain of groups that rely on one another, by dynamic programming over which parts
the prompt holds exactly and over the tokens taken. With those standing, what relies on them is as free to choose as any
other level, and the knapsack chooses everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ctxkit.context.costs import Costs
from ctxkit.context.group import Group
from ctxkit.context.ladders import Ladders
from ctxkit.context.level import DROPPED, Level
from ctxkit.context.needs import is_exact, lossy_parts, unmet
from ctxkit.context.problem import Problem

_BUCKETS = 32  # of tokens; in each only the best state goes on
_STATES = 400  # per group

Standing = Mapping[int, Level]
"""Group index -> the level at which it stands exactly, whatever else is chosen."""


@dataclass(frozen=True)
class Footing:
    """The groups in `standing` are in exactly: at their level there, at another that is exact, or whole."""

    problem: Problem
    ladders: Ladders
    standing: Standing = field(default_factory=dict)

    def levels(self, group: Group) -> tuple[Level, ...]:
        """What the group may be sent at: levels whose needs stand, and of a standing group only exact ones."""
        relying = [one for one in self.ladders.relying(group) if self._stands(group, one)]
        stand = self.standing.get(group.index)
        if stand is None:
            return self.ladders.with_relying(group, relying)
        exact = [one for one in relying if is_exact(group, one)] if stand.needs else []
        exact.append(self.ladders.whole(group))
        return tuple(
            one for one in self.ladders.with_relying(group, exact[:-1]) if any(one is known for known in exact)
        )

    def _stands(self, group: Group, level: Level) -> bool:
        return not unmet(self.problem, {**self.standing, group.index: level})


@dataclass(frozen=True, slots=True)
class _Option:
    """One level of a group: its tokens, its value less their price, what it needs and what it shows exactly."""

    level: Level
    tokens: int
    gain: float
    needed: frozenset[str]
    shown: frozenset[str]


_Trail = tuple["_Trail", int, Level] | None
_State = tuple[float, int, _Trail]


@dataclass(frozen=True)
class Chains:
    """The groups that rely on one another. groups: those that there is a choice for."""

    problem: Problem
    ladders: Ladders
    costs: Costs
    groups: Sequence[Group]

    def footing(self, price: float, room: int) -> Footing:
        """What had best stand where a token costs so much value, and takes at most `room` tokens."""
        standing: dict[int, Level] = {}
        for chain in self._chains:
            levels = self._best(chain, price, room)
            needed = {need.base_id for level in levels.values() for need in level.needs}
            for index, level in levels.items():
                if needed & {part.id for part in self.problem.groups[index].parts}:
                    standing[index] = level
                    room -= self.costs.parts(level.parts)
        return Footing(self.problem, self.ladders, standing)

    @cached_property
    def _choosable(self) -> frozenset[int]:
        return frozenset(group.index for group in self.groups)

    @cached_property
    def _chains(self) -> list[list[Group]]:
        """Groups that are linked by needs, each chain in the order of the prompt; the worthiest chain first."""
        root: dict[int, int] = {}

        def find(index: int) -> int:
            while root.setdefault(index, index) != index:
                index = root[index]
            return index

        for group in self.groups:
            for base in self._bases(group):
                root[find(group.index)] = find(base.index)
        chains: dict[int, list[Group]] = {}
        for index in sorted(root):
            chains.setdefault(find(index), []).append(self.problem.groups[index])
        values = self.problem.values
        return sorted(chains.values(), key=lambda chain: -sum(values[group.index] for group in chain))

    def _bases(self, group: Group) -> Iterator[Group]:
        places = self.problem.places
        for need in (need for level in self.ladders.relying(group) for need in level.needs):
            if need.base_id in places:
                yield self.problem.group_at[places[need.base_id]]

    def _best(self, chain: Sequence[Group], price: float, room: int) -> Mapping[int, Level]:
        """The best level of each group that there is a choice for, all needs met; empty where nothing fits."""
        width = max(room // _BUCKETS, 1)
        states: dict[tuple[frozenset[str], int], _State] = {(frozenset(), 0): (0.0, 0, None)}
        for group, wanted in zip(chain, self._wanted_after(chain), strict=True):
            grown: dict[tuple[frozenset[str], int], _State] = {}
            options = self._options(group, price)
            for (shown, _), (gain, tokens, trail) in states.items():
                for one in options:
                    taken, worth = tokens + one.tokens, gain + one.gain
                    if taken > room or not one.needed <= shown:
                        continue
                    key = ((shown | one.shown) & wanted, taken // width)
                    if key not in grown or worth > grown[key][0]:
                        grown[key] = (worth, taken, (trail, group.index, one.level))
            states = dict(sorted(grown.items(), key=lambda one: -one[1][0])[:_STATES])
        best = max(states.values(), key=lambda state: state[0], default=(0.0, 0, None))
        return {index: level for index, level in _walked(best[2]) if index in self._choosable}

    def _wanted_after(self, chain: Sequence[Group]) -> list[frozenset[str]]:
        """The bases that later groups could need, for each group."""
        wanted: frozenset[str] = frozenset()
        after = []
        for group in reversed(chain):
            after.append(wanted)
            wanted |= {need.base_id for level in self.ladders.relying(group) for need in level.needs}
        return after[::-1]

    def _options(self, group: Group, price: float) -> list[_Option]:
        """Dropped, the best that tells not all, whole, and what relies on others."""
        if group.index not in self._choosable:
            return [self._settled(group)]
        known = self.ladders.of(group)
        others = [self._option(group, level, price) for level in known[:-1]]
        whole = [self._option(group, level, price) for level in (known[-1], *self.ladders.relying(group))]
        least, best = others[:1], max(others, key=lambda one: one.gain, default=None)
        return [*least, *([best] if best and best is not least[0] else []), *whole]

    def _settled(self, group: Group) -> _Option:
        """A group that there is no choice for: it costs nothing more."""
        if not self.problem.is_fixed(group):
            return _Option(DROPPED, 0, 0.0, frozenset(), frozenset())
        level = self.problem.held.get(group.index, self.ladders.whole(group))
        return replace(self._option(group, level, 0.0), tokens=0, gain=0.0, needed=frozenset())

    def _option(self, group: Group, level: Level, price: float) -> _Option:
        tokens = self.costs.parts(level.parts)
        shown = frozenset(part.id for part in group.parts) - lossy_parts(group, level)
        needed = frozenset(need.base_id for need in level.needs) - shown
        gain = self.problem.values[group.index] * level.utility - price * tokens
        return _Option(level, tokens, gain, needed, shown)


def _walked(trail: _Trail) -> Iterator[tuple[int, Level]]:
    while trail is not None:
        before, index, level = trail
        yield index, level
        trail = before
