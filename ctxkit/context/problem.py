"""What `fit` was asked: parts, groups, budget, counter. How a choice of levels looks as a prompt, counted exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ctxkit.context.budget import Budget
from ctxkit.context.compose import compose
from ctxkit.context.expand import EXPAND, shows
from ctxkit.context.group import Group
from ctxkit.context.level import Level
from ctxkit.context.part import KINDS, Kind, Part
from ctxkit.context.utility import Utility
from ctxkit.errors import PartError
from ctxkit.protocols import Counter, PromptMessage, Rendering, Tool

Levels = Mapping[int, Level]
"""Group index -> the level that an unpinned group is sent at; absent: dropped."""


@dataclass(frozen=True)
class Problem:
    """Parts, groups, budget and counter of one call.

    expandable: offer the `expand` tool wherever the prompt shows a handle. forced: groups that must be in whole though
        nothing of them is pinned; for asking what it would take. held: by group index, the level (without parts:
        dropped) of groups that are not chosen for, so that a session can keep a prompt's beginning.
    """

    parts: tuple[Part, ...]
    groups: tuple[Group, ...]
    budget: Budget
    counter: Counter
    tools: tuple[Tool, ...]
    utility: Utility
    least_value: float = 0.0
    expandable: bool = False
    forced: frozenset[int] = frozenset()
    held: Levels = field(default_factory=dict)

    @cached_property
    def values(self) -> Sequence[float]:
        """What each group is worth whole, by group index."""
        values = self.utility.values(self.groups)
        if len(values) != len(self.groups):
            raise PartError(f"`utility` gave {len(values):,} values for {len(self.groups):,} groups")
        return values

    def value(self, levels: Levels) -> float:
        """What these levels are worth; rounded once, so that equal sets of values are equal sums."""
        return math.fsum(self.values[index] * level.utility for index, level in levels.items())

    def is_fixed(self, group: Group) -> bool:
        """Whether there is nothing to choose: the group is in whole, whatever it costs, or held at a level."""
        return group.pinned or group.index in self.forced or group.index in self.held

    @cached_property
    def fixed(self) -> list[Group]:
        """The groups that nothing is to be chosen for: in whole, or held."""
        return [group for group in self.groups if self.is_fixed(group)]

    @cached_property
    def required(self) -> list[Group]:
        """The groups that must be in at some level."""
        return [group for group in self.groups if group.required and not self.is_fixed(group)]

    @cached_property
    def optional(self) -> list[Group]:
        """The groups that may be left out and are worth enough to be in."""
        least, values = self.least_value, self.values
        return [
            group
            for group in self.groups
            if values[group.index] > 0
            and values[group.index] >= least
            and not group.required
            and not self.is_fixed(group)
        ]

    @cached_property
    def limited(self) -> tuple[Kind, ...]:
        """The kinds that have a cap or a floor."""
        named = {*self.budget.caps, *self.budget.floors}
        return tuple(kind for kind in KINDS if kind in named)

    @property
    def limit(self) -> int:
        """Tokens that the prompt may take."""
        return self.budget.prompt_tokens

    @cached_property
    def question(self) -> str:
        """What is asked: the last question, or the last pinned user turn."""
        asked = (
            part for part in reversed(self.parts) if part.kind == "question" or (part.pinned and part.role == "user")
        )
        return next((part.content for part in asked), "")

    def messages(self, levels: Levels) -> tuple[PromptMessage, ...]:
        """Pinned groups as they are, the others at the level given (absent: dropped), in the order of the parts."""
        sent = dict(self._fixed)
        for index, level in levels.items():
            sent.update(_placed(self.groups[index], level))
        return compose(sent[position] for position in sorted(sent))

    def tools_with(self, levels: Levels) -> tuple[Tool, ...]:
        """The tools sent along; `expand` is among them exactly when a handle can be seen."""
        sent = (*levels.values(), *self.held.values())
        visible = self.expandable and any(_shows_handle(level) for level in sent)
        return (*self.tools, EXPAND) if visible else self.tools

    def render(self, levels: Levels) -> Rendering:
        """The exact prompt of these levels."""
        return self._rendered(levels, self.tools_with(levels))

    def render_bare(self, levels: Levels) -> Rendering:
        """As `render`, without the `expand` tool, whose cost is no single level's."""
        return self._rendered(levels, self.tools)

    def _rendered(self, levels: Levels, tools: Sequence[Tool]) -> Rendering:
        messages = self.messages(levels)
        return self.counter.render(messages, tools=tools) if messages or tools else Rendering(0, (), {})

    def tokens_by_kind(self, rendering: Rendering) -> dict[Kind, int]:
        tokens = dict.fromkeys(KINDS, 0)
        for owner, count in rendering.by_owner.items():
            if owner in self._kinds:
                tokens[self._kinds[owner]] += count
        return tokens

    def over_caps(self, rendering: Rendering, levels: Levels) -> dict[Kind, int]:
        """By how much a kind exceeds its cap, counted exactly; a kind with only pinned parts in is exempt."""
        if not self.budget.caps:
            return {}
        used = self.tokens_by_kind(rendering)
        bound = {
            part.kind for index, level in levels.items() if not self.groups[index].required for part in level.parts
        }
        caps = self.budget.caps
        return {kind: used[kind] - caps[kind] for kind in caps if kind in bound and used[kind] > caps[kind]}

    def fits(self, rendering: Rendering, levels: Levels) -> bool:
        return rendering.tokens <= self.limit and not self.over_caps(rendering, levels)

    def led_by_user(self, levels: Levels) -> Levels:
        """Without the groups that would put an answer or a tool before the first message of the user.

        Providers refuse such a conversation. Nothing is changed where the parts themselves begin that way.
        """
        if not self.user_leads:
            return levels
        kept = dict(levels)
        for position, part in enumerate(self.parts):
            group = self.group_at[position]
            if part.role in ("system", "developer") or (position not in self._fixed and group.index not in kept):
                continue
            if part.role == "user" or position in self._fixed or group.required:
                break
            del kept[group.index]
        return kept

    @cached_property
    def user_leads(self) -> bool:
        """Whether the first message of the parts, but for system messages, is the user's."""
        roles = (part.role for part in self.parts)
        return next((role for role in roles if role not in ("system", "developer")), "") == "user"

    @cached_property
    def places(self) -> dict[str, int]:
        """Position of each part, by id."""
        return {part.id: position for position, part in enumerate(self.parts)}

    @cached_property
    def group_at(self) -> list[Group]:
        """The group of each part, by position."""
        at: dict[int, Group] = {position: group for group in self.groups for position in group.positions}
        return [at[position] for position in range(len(self.parts))]

    @cached_property
    def _fixed(self) -> dict[int, Part]:
        """Parts that are in, whatever is chosen, by position."""
        whole = (group for group in self.fixed if group.index not in self.held)
        fixed = {at: part for group in whole for at, part in zip(group.positions, group.parts, strict=True)}
        for index, level in self.held.items():
            fixed.update(_placed(self.groups[index], level))
        return fixed

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {part.id: part.kind for part in self.parts}

    def at(self, budget: Budget | None = None, forced: frozenset[int] = frozenset()) -> Problem:
        """The same problem under another budget, or with other groups forced in."""
        return replace(self, budget=budget or self.budget, forced=forced)


def _placed(group: Group, level: Level) -> Iterable[tuple[int, Part]]:
    """(position, part) of each part that the level sends."""
    if level.parts is group.parts:
        return zip(group.positions, group.parts, strict=True)
    place = dict(zip((part.id for part in group.parts), group.positions, strict=True))
    return ((place[part.id], part) for part in level.parts)


def _shows_handle(level: Level) -> bool:
    """Whether a part of the level tells the model how to expand what it leaves out."""
    named = {handle.part_id for handle in level.handles}
    return any(part.id in named and shows(part.content, part.id) for part in level.parts)
