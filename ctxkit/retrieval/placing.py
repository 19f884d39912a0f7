"""Why each hit of a search is where it is, in words: what every method says of it, and who was put before it."""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.retrieval.hit import Hit

_NAMES = {"dense": "vectors", "lexical": "words"}


def placings(hits: Sequence[Hit]) -> list[str]:
    """A line for each hit of one search, in its order.

    `1st by vectors (9.13), 3rd by words (4.20); 0.957 together; behind 1, which words put higher`
    """
    methods = tuple(dict.fromkeys(ranking.method for hit in hits for ranking in hit.rankings))
    before = [None, *hits][: len(hits)]
    return [_placing(hit, ahead, methods) for hit, ahead in zip(hits, before, strict=True)]


def _placing(hit: Hit, ahead: Hit | None, methods: Sequence[str]) -> str:
    given = {ranking.method: ranking for ranking in hit.rankings}
    said = [
        f"{ordinal(given[method].rank)} by {_name(method)} ({given[method].score:.2f})"
        if method in given
        else f"not found by {_name(method)}"
        for method in methods
    ]
    told = [", ".join(said)] if said else []
    if len(methods) > 1 and all(ranking.score != hit.score for ranking in hit.rankings):
        told.append(f"{hit.score:.3f} together")
    higher = [_name(method) for method in methods if ahead is not None and _rank(ahead, method) < _rank(hit, method)]
    if ahead is not None and len(methods) > 1 and higher:
        told.append(f"behind {ahead.rank}, which {' and '.join(higher)} put{'s' * _single(higher)} higher")
    return "; ".join(told)


def ordinal(number: int) -> str:
    """`1st`, `12th`, `23rd`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _name(method: str) -> str:
    return _NAMES.get(method, method)


def _single(names: Sequence[str]) -> bool:
    """Whether a verb after them is in the singular."""
    return len(names) == 1 and names[0] not in _NAMES.values()


def _rank(hit: Hit, method: str) -> float:
    return next((ranking.rank for ranking in hit.rankings if ranking.method == method), float("inf"))
