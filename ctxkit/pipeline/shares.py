"""Water-filling: a budget shared out by weight, where nobody gets more than it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

_LEAST_TOKENS = 16  # of a content: less is no sentence

ShareOut = Callable[[Sequence[Sequence[int]], Sequence[Sequence[float]], Sequence[int], int], list[int]]
"""Needs and weights of each cluster's pieces, what each cluster costs besides, the room: tokens for each content."""


def water_filled(needs: Sequence[int], weights: Sequence[float], room: int) -> list[int]:
    """Tokens for each, together at most `room`: shares in proportion to the weights, none above its need.

    What a small one leaves over goes to the others, again by weight. Where no weight is above 0 all weigh the same.

    >>> water_filled([10, 100, 100], [2, 1, 1], 90)
    [10, 40, 40]
    """
    if len(needs) != len(weights):
        raise ValueError(f"{len(needs)} needs and {len(weights)} weights")
    weights = weights if any(weight > 0 for weight in weights) else [1.0] * len(needs)
    shares = [0] * len(needs)
    open_ = [i for i, weight in enumerate(weights) if weight > 0]
    left = max(room, 0)
    for i in sorted(open_, key=lambda i: (needs[i] / weights[i], i)):
        # In this order, the first that the water does not fill is followed only by others that it does not fill.
        level = left / sum(weights[j] for j in open_)
        shares[i] = min(needs[i], int(level * weights[i] + 1e-9), left)
        left -= shares[i]
        open_.remove(i)
    return shares


def shares_of_clusters(
    needs: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], overheads: Sequence[int], room: int
) -> list[int]:
    """Tokens for the content of each cluster: what its pieces get when the room is water-filled over all pieces.

    needs, weights: of each cluster's pieces. overheads: what each cluster costs besides, a heading for one.
    Clusters that would get too little to read get 0, from the last one up: give the weightiest first.
    """
    for count in range(len(needs), 0, -1):
        flat = [(need, weight) for i in range(count) for need, weight in zip(needs[i], weights[i], strict=True)]
        level = iter(water_filled([n for n, _ in flat], [w for _, w in flat], room - sum(overheads[:count])))
        shares = [sum(islice(level, len(one))) for one in needs[:count]]
        if count == 1 or all(share >= min(sum(one), _LEAST_TOKENS) for share, one in zip(shares, needs, strict=False)):
            return shares + [0] * (len(needs) - count)
    return []


def in_turn(
    needs: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], overheads: Sequence[int], room: int
) -> list[int]:
    """Tokens for each content: all that the first needs, then the next, until the room is used up."""
    shares = []
    for one, overhead in zip(needs, overheads, strict=True):
        share = min(sum(one), room - overhead)
        shares.append(share if share >= min(sum(one), _LEAST_TOKENS) else 0)
        room -= share + overhead if shares[-1] else 0
    return shares
