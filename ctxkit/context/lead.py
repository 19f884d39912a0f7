"""Lead: no answer and no tool before the first message of the user. Providers refuse such a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctxkit.context.group import Group
from ctxkit.context.part import Part
from ctxkit.context.problem import Problem

_LEADERS = 3  # tried, at most
_MANY = 1_000  # early groups; among so many the nearest leader will do


@dataclass(frozen=True)
class Fault:
    """Someone else than the user leads. Either the groups in `banned` go, or one of `leaders` comes in."""

    banned: tuple[int, ...]
    leaders: tuple[int, ...]


@dataclass(frozen=True)
class Lead:
    """Which groups of a table stand before all that must be in, and which of them begin with the user.

    early: places in the table, in the order of the conversation. by_user: of those, the ones that the user begins.
    """

    early: tuple[int, ...]
    by_user: frozenset[int]

    @classmethod
    def of(cls, problem: Problem, groups: Sequence[Group]) -> Lead:
        if not problem.user_leads:
            return cls((), frozenset())
        first_fixed = min(
            (
                position
                for group in (*problem.required, *problem.fixed)
                if group.index not in problem.held or problem.held[group.index].parts
                for position, part in zip(group.positions, group.parts, strict=True)
                if _speaks(part)
            ),
            default=len(problem.parts),
        )
        required = {group.index for group in problem.required}
        starts = {place: _start(group) for place, group in enumerate(groups) if group.index not in required}
        early = sorted((start[0], place) for place, start in starts.items() if start and start[0] < first_fixed)
        places = tuple(place for _, place in early)
        return cls(places, frozenset(place for place in places if (starts[place] or (0, ""))[1] == "user"))

    def fault(self, picks: np.ndarray, is_in: Callable[[int], bool]) -> Fault | None:
        """What is wrong with these picks, None where the user leads."""
        kept = [place for place in self.early if is_in(int(picks[place]))]
        if not kept or kept[0] in self.by_user:
            return None
        first_user = next((place for place in kept if place in self.by_user), None)
        end = len(self.early) if first_user is None else self.early.index(first_user)
        banned = tuple(place for place in self.early[:end] if place not in self.by_user)
        ahead = self.early[: self.early.index(kept[0])]
        most = 1 if len(self.early) > _MANY else _LEADERS
        return Fault(banned, tuple(place for place in reversed(ahead) if place in self.by_user)[:most])


def _speaks(part: Part) -> bool:
    return part.role not in ("system", "developer")


def _start(group: Group) -> tuple[int, str] | None:
    """Position and role of the group's first part that is no system message."""
    spoken = zip(group.positions, group.parts, strict=True)
    return next(((position, part.role) for position, part in spoken if _speaks(part)), None)
