"""The ladder: one reduction of a whole group after the other, each in about half the tokens of the one before.

A group is cut down like a hedge: its largest texts first, until all that can be reduced have about one height.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ctxkit.compression.sources.cut import Cut, Reader, Source, handles_of
from ctxkit.compression.sources.noted import NotedSource
from ctxkit.compression.sources.slots import Slot, rewritten, slots_of
from ctxkit.context.group import Group
from ctxkit.context.level import Handle, Level, LevelRequest
from ctxkit.context.part import Part

LARGEST_RATE = 0.7
NEXT_RATE = 0.45  # of the one before


@dataclass(frozen=True)
class Ladder:
    """Levels of one group, made by one way to read contents and one to read call arguments.

    least_tokens: the smallest size that is aimed at; what cannot get that small ends where it can.
    """

    name: str
    group: Group
    request: LevelRequest
    contents: Reader
    arguments: Reader
    least_tokens: int

    def levels(self) -> Iterator[Level]:
        """Largest first; tokens and utilities fall from each to the next."""
        tokens, utility = self.total, 1.0
        for target in self._targets():
            made = self._filled(min(target, tokens - 1))
            if made is None:
                continue
            size, level = made
            if size < tokens and level.utility < utility:
                tokens, utility = size, level.utility
                yield level

    def resize(self, tokens: int) -> Level | None:
        """The group in at most `tokens` tokens, contents and call arguments together; None where nothing fits."""
        made = self._filled(min(tokens, self.total - 1))
        return None if made is None else made[1]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return slots_of(self.group, self.request.counter)

    @cached_property
    def total(self) -> int:
        """Tokens of all contents and call arguments."""
        return sum(slot.tokens for slot in self.slots)

    @cached_property
    def _sources(self) -> tuple[Source | None, ...]:
        return tuple(self._source(slot) for slot in self.slots)

    def _source(self, slot: Slot) -> Source | None:
        if not slot.is_reducible:
            return None
        source = (self.contents if slot.call is None else self.arguments)(slot.text, self.request)
        if source is None or source.smallest is None:
            return None
        if slot.call is None and self.request.expandable:
            return NotedSource(source, self.group.parts[slot.place].id, self.request.counter)
        return source

    def _targets(self) -> Iterator[int]:
        """Sizes to aim at, falling, in tokens."""
        if self.total < 2 or not any(self._sources):
            return
        natural = self._natural()
        if natural < self.total:
            yield natural
        rate = LARGEST_RATE
        while (size := int(rate * self.total)) > self.least_tokens:
            if size < natural:
                yield size
            rate *= NEXT_RATE
        yield max(min(self.least_tokens, self.total - 1), sum(map(self._floor, range(len(self.slots)))))

    def _natural(self) -> int:
        """Tokens of the group where every text drops only what it can spare."""
        natural = [source.natural if source is not None else None for source in self._sources]
        return sum(slot.tokens if size is None else size for slot, size in zip(self.slots, natural, strict=True))

    def _filled(self, tokens: int) -> tuple[int, Level] | None:
        """The level in at most `tokens` tokens and its size."""
        cuts = self._cuts(tokens)
        if cuts is None or all(cut is None for cut in cuts):
            return None
        size = sum(slot.tokens if cut is None else cut.tokens for slot, cut in zip(self.slots, cuts, strict=True))
        return (size, self._level(cuts)) if size <= tokens else None

    def _cuts(self, tokens: int) -> list[Cut | None] | None:
        """What each slot becomes (None: stays whole), smallest slots first; what they leave over goes to the larger."""
        cuts: list[Cut | None] = [None] * len(self.slots)
        waiting = sorted(range(len(self.slots)), key=lambda i: (self._ceiling(i), i))
        left = tokens
        while waiting:
            room_each = height([self._ceiling(i) for i in waiting], [self._floor(i) for i in waiting], left)
            if room_each is None:
                return None
            index = waiting.pop(0)
            slot, source = self.slots[index], self._sources[index]
            room = min(max(room_each, self._floor(index)), left)
            if source is None or slot.tokens <= room and slot.tokens == self._ceiling(index):
                left -= slot.tokens
                continue
            cut = source.at(room)
            if cut is None:
                return None
            cuts[index] = cut
            left -= cut.tokens
        return cuts

    def _ceiling(self, index: int) -> int:
        source = self._sources[index]
        return self.slots[index].tokens if source is None else source.ceiling

    def _floor(self, index: int) -> int:
        source = self._sources[index]
        smallest = None if source is None else source.smallest
        return self.slots[index].tokens if smallest is None else min(smallest.tokens, self._ceiling(index))

    def _level(self, cuts: Sequence[Cut | None]) -> Level:
        kept = (slot.tokens * (1.0 if cut is None else cut.value) for slot, cut in zip(self.slots, cuts, strict=True))
        parts, handles = self._parts(cuts)
        return Level(self.name, parts, sum(kept) / self.total, self._method(cuts), handles, self.resize)

    def _method(self, cuts: Sequence[Cut | None]) -> str:
        kinds = [source.kind for source, cut in zip(self._sources, cuts, strict=True) if source is not None and cut]
        return f"{self.name} ({', '.join(dict.fromkeys(kinds))})"

    def _parts(self, cuts: Sequence[Cut | None]) -> tuple[tuple[Part, ...], tuple[Handle, ...]]:
        parts = list(self.group.parts)
        handles: list[Handle] = []
        for place, part in enumerate(self.group.parts):
            mine = [(slot, cut) for slot, cut in zip(self.slots, cuts, strict=True) if slot.place == place and cut]
            if not mine:
                continue
            content = next((cut for slot, cut in mine if slot.call is None), None)
            calls = {slot.call: cut.text for slot, cut in mine if slot.call is not None}
            parts[place] = rewritten(part, part.content if content is None else content.text, calls)
            if content is not None:
                moved = (replace(one, offset=content.place_of(one.offset)) for one in part.attachments)
                parts[place] = replace(parts[place], attachments=tuple(moved))
            handles += handles_of(part, None if calls else content)
        return tuple(parts), tuple(handles)


def height(ceilings: Sequence[int], floors: Sequence[int], tokens: int) -> int | None:
    """The greatest height to which all can be cut so that they take at most `tokens`; None where even floors do not."""

    def taken(height: int) -> int:
        return sum(min(c, max(height, f)) for c, f in zip(ceilings, floors, strict=True))

    if taken(0) > tokens:
        return None
    low, high = 0, max(ceilings)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if taken(middle) <= tokens else (low, middle - 1)
    return low
