"""Ballots: counting votes, and whether the votes that are still out can change anything."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence


def tally(answers: Iterable[str]) -> dict[str, int]:
    """Votes per answer, the most voted first, and first said first among equals."""
    return dict(Tally(answers).most_common())


def leaders(votes: dict[str, int]) -> tuple[str, ...]:
    """The answers with the most votes: one, or those that are tied, first said first; none without a vote.

    >>> leaders(tally(["b", "a", "a", "b", "c"]))
    ('b', 'a')
    """
    most = max(votes.values(), default=0)
    return tuple(answer for answer, n in votes.items() if n == most)


def is_decided(votes: dict[str, int], out: int) -> bool:
    """Whether the leader stays the only one, however the votes that are `out` fall."""
    return out < _lead(votes)


def fewest_to_decide(votes: dict[str, int], out: int) -> int:
    """How many of the votes that are `out` could decide it, if all fell to the leader; 0 where it is decided.

    >>> fewest_to_decide({}, 5), fewest_to_decide({"a": 2, "b": 1}, 2)
    (3, 1)
    """
    return max(0, (out - _lead(votes)) // 2 + 1)


def _lead(votes: dict[str, int]) -> int:
    """Of the first over the second."""
    most: Sequence[int] = sorted([*votes.values(), 0, 0], reverse=True)
    return most[0] - most[1]
