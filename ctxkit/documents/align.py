"""Ties the words of an extracted text to the words of the source they came from.

Patience alignment: runs of words that occur exactly once on both sides are matched, the longest ascending chain of
them is kept, and what lies between two kept matches is aligned the same way with shorter runs. A repeated word (a menu
entry that is also a heading) therefore never pulls the alignment away.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

_RUN_LENGTHS = (8, 4, 2, 1)  # words

Window = tuple[int, int, int, int]
"""Half-open range in the extracted words, then half-open range in the source words."""


def align(extracted: Sequence[str], source: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (index in `extracted`, index in `source`) of words taken to be the same, ascending in both."""
    pairs: list[tuple[int, int]] = []
    for run in _RUN_LENGTHS:
        found: list[tuple[int, int]] = []
        for window in _gaps(pairs, len(extracted), len(source)):
            found.extend(_grow(_unique_runs(extracted, source, window, run), extracted, source, window))
        pairs = sorted([*pairs, *found])
    return pairs


def _gaps(pairs: Sequence[tuple[int, int]], extracted: int, source: int) -> Iterator[Window]:
    """What lies between neighbouring pairs, where both sides have words left."""
    left = (-1, -1)
    for right in [*pairs, (extracted, source)]:
        if right[0] - left[0] > 1 and right[1] - left[1] > 1:
            yield left[0] + 1, right[0], left[1] + 1, right[1]
        left = right


def _unique_runs(extracted: Sequence[str], source: Sequence[str], window: Window, run: int) -> list[tuple[int, int]]:
    low_a, high_a, low_b, high_b = window
    once_a = _once(extracted, low_a, high_a, run)
    if not once_a:
        return []
    once_b = _once(source, low_b, high_b, run)
    pairs = [(i, once_b[words]) for words, i in once_a.items() if words in once_b]
    return _longest_ascending(sorted(pairs))


def _once(words: Sequence[str], low: int, high: int, run: int) -> dict[tuple[str, ...], int]:
    """Runs of `run` words that start exactly once in `words[low:high]`, with where they start."""
    seen: dict[tuple[str, ...], int] = {}
    for i in range(low, high - run + 1):
        key = tuple(words[i : i + run])
        seen[key] = -1 if key in seen else i
    return {key: i for key, i in seen.items() if i >= 0}


def _longest_ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest chain of pairs, sorted by the first number, whose second numbers ascend."""
    tails: list[int] = []  # last second number of the best chain of each length
    ends: list[int] = []  # which pair that is
    before: list[int] = []
    for i, (_, b) in enumerate(pairs):
        length = bisect_left(tails, b)
        tails[length : length + 1] = [b]
        ends[length : length + 1] = [i]
        before.append(ends[length - 1] if length else -1)
    chain, i = [], ends[-1] if ends else -1
    while i >= 0:
        chain.append(pairs[i])
        i = before[i]
    return chain[::-1]


def _grow(
    seeds: Sequence[tuple[int, int]], extracted: Sequence[str], source: Sequence[str], window: Window
) -> Iterator[tuple[int, int]]:
    """The seeds and the equal words next to them, forwards and then backwards, without overlap."""
    _, high_a, _, high_b = window
    floor_a, floor_b = window[0], window[2]
    for n, (seed_a, seed_b) in enumerate(seeds):
        if seed_a < floor_a or seed_b < floor_b:
            continue
        stop_a, stop_b = seeds[n + 1] if n + 1 < len(seeds) else (high_a, high_b)
        a, b = seed_a, seed_b
        while a > floor_a and b > floor_b and extracted[a - 1] == source[b - 1]:
            a, b = a - 1, b - 1
        while a < seed_a or (a < stop_a and b < stop_b and extracted[a] == source[b]):
            yield a, b
            a, b = a + 1, b + 1
        floor_a, floor_b = a, b
