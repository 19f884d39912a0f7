"""Align: which items of two sequences correspond, in bounded time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

_FEW_EDITS = 64  # tried first: the shortest script of so few edits takes no time
_EDITS = 600  # tried where no anchor divides the region
_WORK = 1_000_000  # comparisons in all; what is left open then counts as replaced

Region = tuple[int, int, int, int]
"""Half-open spans in both sequences: start and end in the first, start and end in the second."""


@dataclass(frozen=True, slots=True)
class Change:
    """`before[start:end]` became `after[new_start:new_end]`; one of the two may be empty."""

    start: int
    end: int
    new_start: int
    new_end: int


def changes(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[Change]:
    """What became of what, in order. Everything between two changes is equal, item by item.

    The shortest edit script (Myers, 1986) where there are few edits; else the region is divided at the items that are
    unique in both (patience), and where that is not possible, replaced. So the time is bounded for any input, which the
    quadratic search of `difflib` is not.

    >>> changes("abcd", "abxd")
    [Change(start=2, end=3, new_start=2, new_end=3)]
    """
    return list(_gaps(_Alignment(before, after).run(), len(after)))


def _gaps(partner: Sequence[int], new_length: int) -> Iterator[Change]:
    """The changes between the items that have a partner."""
    at = new_at = 0
    for index, place in enumerate([*partner, new_length]):
        if place < 0:
            continue
        if index > at or place > new_at:
            yield Change(at, index, new_at, place)
        at, new_at = index + 1, place + 1


class _Alignment:
    def __init__(self, before: Sequence[Hashable], after: Sequence[Hashable]) -> None:
        numbers: dict[Hashable, int] = {}
        self._a = [numbers.setdefault(item, len(numbers)) for item in before]
        self._b = [numbers.setdefault(item, len(numbers)) for item in after]
        self._partner = [-1] * len(self._a)
        self._work = _WORK

    def run(self) -> list[int]:
        """For each item before, the place of its partner after; -1 for none."""
        waiting: list[Region] = [(0, len(self._a), 0, len(self._b))]
        while waiting:
            low, high, new_low, new_high = self._trimmed(waiting.pop())
            if low == high or new_low == new_high:
                continue
            region = (low, high, new_low, new_high)
            if not self._shortest(region, _FEW_EDITS):
                divided = self._divided(region)
                if divided:
                    waiting += divided
                else:
                    self._shortest(region, _EDITS)
        return self._partner

    def _trimmed(self, region: Region) -> Region:
        """The region without its equal beginning and end, which are matched."""
        low, high, new_low, new_high = region
        a, b = self._a, self._b
        while low < high and new_low < new_high and a[low] == b[new_low]:
            self._partner[low] = new_low
            low, new_low = low + 1, new_low + 1
        while low < high and new_low < new_high and a[high - 1] == b[new_high - 1]:
            high, new_high = high - 1, new_high - 1
            self._partner[high] = new_high
        return low, high, new_low, new_high

    def _divided(self, region: Region) -> list[Region]:
        """The regions between the items that are unique in both; empty where there are none."""
        low, high, new_low, new_high = region
        places = {item: place for place, item in enumerate(self._b[new_low:new_high], new_low)}
        once, new_once = Tally(self._a[low:high]), Tally(self._b[new_low:new_high])
        unique = [(i, places[x]) for i, x in enumerate(self._a[low:high], low) if once[x] == 1 == new_once.get(x)]
        anchors = _rising(unique)
        ends = [*anchors, (high, new_high)] if anchors else []
        divided: list[Region] = []
        for index, place in ends:
            divided.append((low, index, new_low, place))
            low, new_low = index, place  # the anchor is matched as the beginning of the next region
        return divided

    def _shortest(self, region: Region, most: int) -> bool:
        """Match along the shortest edit script, where it has at most so many edits and there is work left."""
        low, high, new_low, new_high = region
        n, m = high - low, new_high - new_low
        if abs(n - m) > most or self._work <= 0:
            return False
        reach, trail = {1: 0}, []
        for edits in range(most + 1):
            trail.append(dict(reach))
            for diagonal in range(-edits, edits + 1, 2):
                x = self._slid(region, _stepped(reach, diagonal, edits), diagonal)
                reach[diagonal] = x
                if x >= n and x - diagonal >= m:
                    self._traced(region, trail, x, diagonal)
                    return True
            if self._work <= 0:
                return False
        return False

    def _slid(self, region: Region, x: int, diagonal: int) -> int:
        """As far along the diagonal as items are equal."""
        a, b, start = self._a, self._b, x
        low, high, new_low, new_high = region
        i, j = low + x, new_low + x - diagonal
        while i < high and j < new_high and a[i] == b[j]:
            i, j = i + 1, j + 1
        self._work -= i - low - start + 1
        return i - low

    def _traced(self, region: Region, trail: Sequence[dict[int, int]], x: int, diagonal: int) -> None:
        """Match what the script that ends here leaves alone."""
        for edits in range(len(trail) - 1, -1, -1):
            start = _stepped(trail[edits], diagonal, edits)
            for place in range(start, x):
                self._partner[region[0] + place] = region[2] + place - diagonal
            down = _goes_down(trail[edits], diagonal, edits)
            diagonal += 1 if down else -1
            x = start if down else start - 1


def _goes_down(reach: dict[int, int], diagonal: int, edits: int) -> bool:
    """Whether the furthest path to the diagonal inserts last, rather than deletes."""
    return diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])


def _stepped(reach: dict[int, int], diagonal: int, edits: int) -> int:
    """Where the furthest path with one more edit arrives on the diagonal."""
    return reach[diagonal + 1] if _goes_down(reach, diagonal, edits) else reach[diagonal - 1] + 1


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of pairs that rise in both."""
    tops: list[int] = []  # the least end of a run of each length
    ends: list[int] = []  # the pair that it belongs to
    before: list[int] = []
    for at, (_, place) in enumerate(pairs):
        length = bisect_left(tops, place)
        tops[length : length + 1], ends[length : length + 1] = [place], [at]
        before.append(ends[length - 1] if length else -1)
    run, at = [], ends[-1] if ends else -1
    while at >= 0:
        run.append(pairs[at])
        at = before[at]
    return run[::-1]
