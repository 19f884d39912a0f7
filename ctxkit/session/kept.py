"""Keeping: what was sent before stays as it was sent, what is new comes in whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ctxkit.context.costs import Costs
from ctxkit.context.fit import Fitting
from ctxkit.context.group import Group
from ctxkit.context.level import DROPPED, Handle, Level, full
from ctxkit.context.needs import unmet
from ctxkit.context.part import Part
from ctxkit.context.problem import Levels, Problem

_TOOLS = ("tool_call", "tool_result")
_SAME_FIELDS = ("message", "content", "role", "kind", "tool_call_id", "tool_calls", "attachments")
Became = Literal["whole", "reduced", "dropped"]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a part in the latest prompt.

    part: as it was given. sent: as it stood in the prompt, None where it was dropped. level: of its group then.
    """

    part: Part
    sent: Part | None
    level: Level

    @property
    def became(self) -> Became:
        return "dropped" if self.sent is None else "whole" if self.sent is self.part else "reduced"

    def is_of(self, part: Part) -> bool:
        """Whether the part still says the same; a late tool result changes the message of its call."""
        return all(getattr(self.part, name) == getattr(part, name) for name in _SAME_FIELDS)


def sent_at(problem: Problem, levels: Levels) -> dict[str, Sent]:
    """What these levels make of each part, by id."""
    sent: dict[str, Sent] = {}
    for group in problem.groups:
        level = full(group) if problem.is_fixed(group) else levels.get(group.index, DROPPED)
        parts = {part.id: part for part in level.parts}
        sent.update({part.id: Sent(part, parts.get(part.id), level) for part in group.parts})
    return sent


def kept_levels(problem: Problem, before: Mapping[str, Sent]) -> Levels:
    """Every part as it was sent before, new ones whole.

    Parts are matched by id, since an answer joins the group of its question and a pin moves on. Whatever is pinned or
    required now is in; a tool round of which something was dropped comes back whole when something joins it, and a part
    that was written as its difference to another does where that one does not say so any more.
    """
    levels: dict[int, Level] = {}
    for group in problem.groups:
        if not problem.is_fixed(group):
            level = _kept(group, before, wanted=group.required or problem.values[group.index] > 0)
            if level.parts:
                levels[group.index] = level
    while missing := unmet(problem, levels):
        levels.update({index: full(problem.groups[index]) for index in missing})
    return problem.led_by_user(levels)


def entering_levels(groups: Iterable[Group], fitting: Fitting, result_tokens: int) -> Levels:
    """The tool rounds among these groups whose results are longer than `result_tokens`, reduced to so many each.

    A result that no compressor makes so short is sent as short as one does.
    """
    limits = [(group, _limit(group, fitting.costs, result_tokens)) for group in groups]
    long = [(group, limit) for group, limit in limits if limit is not None]
    fitting.ladders.ask([group for group, _ in long])
    reduced = {group.index: _reduced(group, fitting, limit) for group, limit in long}
    return {index: level for index, level in reduced.items() if level is not None}


def _limit(group: Group, costs: Costs, result_tokens: int) -> int | None:
    """Tokens of the group's texts with no result above `result_tokens`; None where none is."""
    texts = [costs.texts(part) for part in group.parts]
    results = [part.kind == "tool_result" and not part.verbatim for part in group.parts]
    limited = [min(n, result_tokens) if result else n for n, result in zip(texts, results, strict=True)]
    return sum(limited) if limited != texts else None


def _reduced(group: Group, fitting: Fitting, limit: int) -> Level | None:
    levels = [level for level in fitting.ladders.of(group) if level.parts and level.name != "full"]
    resized = [level.resize(limit) for level in reversed(levels) if level.resize]
    fitting_ones = [level for level in levels if fitting.costs.contents(level) <= limit]
    return next((level for level in (*resized, *reversed(fitting_ones), *levels[:1]) if level is not None), None)


def _kept(group: Group, before: Mapping[str, Sent], *, wanted: bool) -> Level:
    """The level of a group, from what its parts were; a group that is all new is whole where it is wanted."""
    known = [before.get(part.id) for part in group.parts]
    records = [one if one and one.is_of(part) else None for one, part in zip(known, group.parts, strict=True)]
    became = {one.became if one else "whole" for one in records}
    if became == {"dropped"} and not group.required:
        return DROPPED
    rounds = any(part.kind in _TOOLS for part in group.parts)
    if became == {"whole"} or ("dropped" in became and (rounds or group.required)):
        return full(group) if wanted or any(records) else DROPPED
    return _rebuilt(group, records)


def _rebuilt(group: Group, records: Sequence[Sent | None]) -> Level:
    """The group with each part as it was; what was whole, or is new, as it is now."""
    pairs = list(zip(group.parts, records, strict=True))
    parts = [part if one is None or one.became == "whole" else one.sent for part, one in pairs]
    reduced = [one for one in records if one is not None and one.became == "reduced"]
    methods = dict.fromkeys(one.level.method for one in reduced)
    return Level(
        reduced[0].level.name if reduced else "kept",
        tuple(part for part in parts if part is not None),
        _utility(group, records),
        ", ".join(methods) or "kept as it was sent",
        tuple(handle for one in reduced for handle in _handles(one)),
        needs=tuple(need for one in reduced for need in one.level.needs if need.part_id == one.part.id),
    )


def _handles(reduced: Sent) -> list[Handle]:
    return [handle for handle in reduced.level.handles if handle.part_id == reduced.part.id]


def _utility(group: Group, records: Sequence[Sent | None]) -> float:
    """The share of the group's value that is kept: of its level, or of its parts' by size where they had several."""
    levels = [one.level for one in records if one is not None]
    if len(levels) == len(records) and all(level is levels[0] for level in levels):
        return levels[0].utility
    shares = {"whole": 1.0, "dropped": 0.0}
    sizes = [len(part.content) + 1 for part in group.parts]
    kept = (
        size * (shares.get(one.became, one.level.utility) if one else 1.0)
        for size, one in zip(sizes, records, strict=True)
    )
    return sum(kept) / sum(sizes)
