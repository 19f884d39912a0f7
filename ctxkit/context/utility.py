"""Utility: what a group is worth whole. A level keeps a share of it.

The default is priority x relevance x recency; fidelity, the fourth factor, is the level's own `utility`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ctxkit.context.group import Group

_CONVERSATION = frozenset({"turn", "tool_call", "tool_result"})


class Utility(Protocol):
    """Gives each group its worth, 0 or more. Equal input must give equal output."""

    def values(self, groups: Sequence[Group]) -> Sequence[float]: ...


@dataclass(frozen=True)
class DefaultUtility:
    """The best of a group's parts by priority x relevance; what was said earlier in a conversation counts less.

    half_age: groups of conversation after which a group counts half of the newest; 3 x half_age makes it a quarter
        (1 / (1 + age / half_age)). None: age does not matter.
    """

    half_age: float | None = 16.0

    def values(self, groups: Sequence[Group]) -> list[float]:
        worth = [group.worth for group in groups]
        if self.half_age is None:
            return worth
        age = 0
        for index in range(len(groups) - 1, -1, -1):
            if groups[index].parts[0].kind in _CONVERSATION:
                worth[index] /= 1 + age / self.half_age
                age += 1
        return worth
