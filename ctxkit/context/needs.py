"""Needs: which levels cannot be read, since the prompt does not hold what they are a difference to."""

from __future__ import annotations

from ctxkit.context.group import Group
from ctxkit.context.level import Level, Need
from ctxkit.context.problem import Levels, Problem


def unmet(problem: Problem, levels: Levels) -> frozenset[int]:
    """The groups whose level needs a part that these levels and what is fixed do not show exactly."""
    relying = [(index, level) for index, level in (*problem.held.items(), *levels.items()) if level.needs]
    if not relying:
        return frozenset()
    reader = _Reader(problem, levels)
    return frozenset(index for index, level in relying if not all(map(reader.meets, level.needs)))


def is_exact(group: Group, level: Level) -> bool:
    """Whether whoever has what the level needs can read every part of the group from it."""
    return len(level.parts) == len(group.parts) and not lossy_parts(group, level)


def lossy_parts(group: Group, level: Level) -> frozenset[str]:
    """Parts of the group that the level does not tell exactly, or not at all."""
    told = {need.part_id for need in level.needs}
    sent = {part.id: part.content for part in level.parts}
    return frozenset(part.id for part in group.parts if part.id not in told and sent.get(part.id) != part.content)


class _Reader:
    """Reads a prompt as a model would: what is whole, and differences to what was read."""

    def __init__(self, problem: Problem, levels: Levels) -> None:
        self._problem = problem
        self._levels = {**problem.held, **levels}

    def meets(self, need: Need) -> bool:
        """Whether the base stands in the prompt before the part, and says what it should."""
        places = self._problem.places
        while need.base_id in places and places[need.base_id] < places[need.part_id]:
            position = places[need.base_id]
            group, part = self._problem.group_at[position], self._problem.parts[position]
            if part.content != need.content:
                return False
            if self._problem.is_fixed(group) and group.index not in self._problem.held:
                return True
            level = self._levels.get(group.index)
            if level is None or part.id in lossy_parts(group, level):
                return False
            own = next((one for one in level.needs if one.part_id == part.id), None)
            if own is None:
                return True
            need = own
        return False
