"""What `fit` was asked, prepared once: groups, exact renderings, and planning costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ctxkit.context.budget import Budget
from ctxkit.context.choose import Option
from ctxkit.context.compose import compose, opens_message, planning_texts
from ctxkit.context.group import Group
from ctxkit.context.level import Level, full
from ctxkit.context.part import KINDS, Kind, Part
from ctxkit.errors import PromptError
from ctxkit.protocols import Counter, PromptMessage, Rendering, Segment, Tool

SEAM_TOKENS = 16  # more than a planning cost is off where pieces meet
_TRIES = 64  # groups rendered to find the smallest
_MESSAGE_TOKENS = 8  # per message, where the template refuses to render the probe


@dataclass(frozen=True)
class Problem:
    """Parts, groups, budget and counter of one call."""

    parts: tuple[Part, ...]
    groups: tuple[Group, ...]
    budget: Budget
    counter: Counter
    tools: tuple[Tool, ...]
    least_value: float = 0.0

    @cached_property
    def unpinned(self) -> list[Group]:
        return [group for group in self.groups if not group.pinned]

    @cached_property
    def optional(self) -> list[Group]:
        """The groups to choose from: unpinned, and worth enough."""
        return [group for group in self.unpinned if group.value > 0 and group.value >= self.least_value]

    @cached_property
    def _pinned(self) -> dict[int, Part]:
        """Pinned parts, and those in a group with one, by position."""
        pinned = [group for group in self.groups if group.pinned]
        return {at: part for group in pinned for at, part in zip(group.positions, group.parts, strict=True)}

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {part.id: part.kind for part in self.parts}

    @property
    def limit(self) -> int:
        """Tokens that the prompt may take."""
        return self.budget.prompt_tokens

    @property
    def question(self) -> str:
        """What is asked: the last question, or the last pinned user turn."""
        asked = [part for part in self.parts if part.kind == "question" or (part.pinned and part.role == "user")]
        return asked[-1].content if asked else ""

    def messages(self, levels: Mapping[int, Level]) -> tuple[PromptMessage, ...]:
        """Pinned groups as they are, the others at the level given (absent: dropped), in the order of the parts."""
        sent = dict(self._pinned)
        for index, level in levels.items():
            place = dict(zip((part.id for part in self.groups[index].parts), self.groups[index].positions, strict=True))
            sent.update((place[part.id], part) for part in level.parts)
        return compose(sent[position] for position in sorted(sent))

    def render(self, levels: Mapping[int, Level]) -> Rendering:
        """The exact prompt of these levels."""
        messages = self.messages(levels)
        if not messages and not self.tools:
            return Rendering(0, (), {})
        return self.counter.render(messages, tools=self.tools)

    def tokens_by_kind(self, rendering: Rendering) -> dict[Kind, int]:
        tokens = dict.fromkeys(KINDS, 0)
        for owner, count in rendering.by_owner.items():
            if owner in self._kinds:
                tokens[self._kinds[owner]] += count
        return tokens

    def over_caps(self, rendering: Rendering, levels: Mapping[int, Level]) -> dict[Kind, int]:
        """By how much a kind exceeds its cap, counted exactly; a kind with only pinned parts in is exempt."""
        used = self.tokens_by_kind(rendering)
        bound = {part.kind for level in levels.values() for part in level.parts} & self.budget.caps.keys()
        return {kind: used[kind] - self.budget.caps[kind] for kind in bound if used[kind] > self.budget.caps[kind]}

    def fits(self, rendering: Rendering, levels: Mapping[int, Level]) -> bool:
        return rendering.tokens <= self.limit and not self.over_caps(rendering, levels)

    def smallest(self, costs: Costs) -> tuple[Group, Rendering] | None:
        """The optional group that takes the fewest tokens on its own, counted exactly; None where caps refuse all.

        Counted are the groups whose planning cost is near the lowest, 64 at most.
        """
        planned = {group.index: costs.option(group, full(group)).tokens for group in self.optional}
        best: tuple[Group, Rendering] | None = None
        cheapest = sorted(self.optional, key=lambda group: (planned[group.index], group.index))
        for tries, group in enumerate(cheapest):
            # Once the planning cost is out of reach of the best found, no later group can beat it.
            if best is not None and (tries >= _TRIES or planned[group.index] > planned[best[0].index] + SEAM_TOKENS):
                break
            levels = {group.index: full(group)}
            alone = self.render(levels)
            if not self.over_caps(alone, levels) and (best is None or alone.tokens < best[1].tokens):
                best = (group, alone)
        return best


class Costs:
    """Planning costs: what a part adds to a prompt, about. Each text is counted once."""

    def __init__(self, counter: Counter, levels: Iterable[Level]) -> None:
        self._counter = counter
        self._message_tokens = _message_tokens(counter)
        self._tokens: dict[str, int] = {}
        self.add(levels)

    def add(self, levels: Iterable[Level]) -> None:
        """Count the texts of these levels."""
        texts = {text for level in levels for part in level.parts for text in planning_texts(part)}
        new = sorted(texts - self._tokens.keys())
        self._tokens.update(zip(new, self._counter.count_batch(new), strict=True))

    def part(self, part: Part) -> int:
        overhead = self._message_tokens if opens_message(part) else 0
        return overhead + sum(self._tokens[text] for text in planning_texts(part))

    def option(self, group: Group, level: Level) -> Option:
        by_kind: dict[Kind, int] = {}
        for part in level.parts:
            by_kind[part.kind] = by_kind.get(part.kind, 0) + self.part(part)
        return Option(sum(by_kind.values()), by_kind, group.value * level.utility)

    def options(self, groups: Iterable[Group], ladders: Mapping[int, Sequence[Level]]) -> dict[int, list[Option]]:
        return {group.index: [self.option(group, level) for level in ladders[group.index]] for group in groups}


def _message_tokens(counter: Counter) -> int:
    """What the template adds per message, measured on a probe."""
    user = PromptMessage("user", (Segment("a"),))
    answer = PromptMessage("assistant", (Segment("a"),))
    try:
        two, four = counter.render([user, answer]), counter.render([user, answer, user, answer])
    except PromptError:
        return _MESSAGE_TOKENS
    return max((four.tokens - two.tokens - 2 * counter.count("a") + 1) // 2, 0)
