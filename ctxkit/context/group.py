"""Groups: parts that live or die together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from ctxkit.context.labels import Label, joined
from ctxkit.context.part import Part, SupportsPart
from ctxkit.errors import PartError


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that are kept, reduced or dropped together, in the order they were given.

    index: place among the groups, by first part. positions: places of the parts in the whole list.
    """

    index: int
    positions: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def pinned(self) -> bool:
        return any(part.pinned for part in self.parts)

    @property
    def required(self) -> bool:
        """Whether the group must be in, at whatever level."""
        return any(part.required for part in self.parts)

    @property
    def label(self) -> Label:
        """Of all of its parts together."""
        return joined(part.label for part in self.parts)

    @property
    def worth(self) -> float:
        """The best of its parts' priority x relevance."""
        return max(part.priority * part.relevance for part in self.parts)


def identified(items: Sequence[Part | SupportsPart]) -> tuple[Part, ...]:
    """The parts, each with an id of its own. Raises PartError for what is no part and for an id used twice."""
    parts: list[Part] = []
    seen: dict[str, int] = {}
    count_of_kind: dict[str, int] = {}
    for position, item in enumerate(items):
        if type(item) is not Part and not isinstance(item, SupportsPart):
            raise PartError(f"item {position} is a {type(item).__name__}, not a part or a search hit")
        part = item.as_part()
        count_of_kind[part.kind] = count_of_kind.get(part.kind, 0) + 1
        if not part.id:
            part = _named(part, f"{part.kind}-{count_of_kind[part.kind]}")
        if part.id in seen:
            raise PartError(f"parts {seen[part.id]} and {position} have the same id {part.id!r}")
        seen[part.id] = position
        parts.append(part)
    return tuple(parts)


def _named(part: Part, part_id: str) -> Part:
    """A copy with an id; `replace` would check every other field again."""
    named = copy(part)
    object.__setattr__(named, "id", part_id)
    return named


def grouped(parts: Sequence[Part]) -> tuple[Group, ...]:
    """Parts by `group` name; tool calls with their results by occurrence, also where ids are re-used or not adjacent.

    Raises PartError for a result that answers no call, for a call that is never answered, and for a call and a result
    that name different groups.
    """
    rounds = _tool_rounds(parts)
    names = _round_names(parts, rounds)
    members: dict[str | int, list[int]] = {}  # by group name, or by the position that a nameless group starts at
    for position, part in enumerate(parts):
        start = rounds.get(position) if rounds else None
        name = part.group if start is None else names.get(start)
        key = name if name is not None else position if start is None else start
        members.setdefault(key, []).append(position)
    return tuple(
        Group(index, tuple(positions), tuple([parts[position] for position in positions]))
        for index, positions in enumerate(members.values())
    )


def _tool_rounds(parts: Sequence[Part]) -> dict[int, int]:
    """Position of each tool part -> position of its call. A result belongs to the latest open call of that id."""
    rounds: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    for position, part in enumerate(parts):
        if part.kind == "tool_call":
            rounds[position] = position
            for call in part.tool_calls:
                waiting.setdefault(str(call.get("id")), []).append(position)
        elif part.kind == "tool_result":
            calls = waiting.get(str(part.tool_call_id))
            if not calls:
                raise PartError(
                    f"tool result {part.id!r} answers call {part.tool_call_id!r}, which no earlier tool_call part makes"
                )
            rounds[position] = calls.pop()
    for call_id, places in waiting.items():
        if places:
            raise PartError(
                f"call {call_id!r} of part {parts[places[0]].id!r} has no tool result; add one, or leave the call out"
            )
    return rounds


def _round_names(parts: Sequence[Part], rounds: Mapping[int, int]) -> dict[int, str]:
    """Position of a call -> the group name that it or one of its results carries."""
    names: dict[int, str] = {}
    for position, start in rounds.items():
        name = parts[position].group
        if name is not None and names.setdefault(start, name) != name:
            raise PartError(
                f"tool call {parts[start].id!r} and its results name different groups ({names[start]!r}, {name!r})"
            )
    return names
