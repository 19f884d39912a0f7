"""From how likely each span of words is asked for to one ranking of the words."""

from __future__ import annotations

import numpy as np

_MOST_ROUNDS = 200  # texts need some 10 to 60; the bound is for made-up ones
_NOTHING = 1e-6  # what a difference of sums of costs may be off


def span_ranking(expected: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Score of each word, float64 [words]: keep the highest first, and spans come whole, the worthiest per cost first.

    expected: [words, longest]; at [i, k] the expected number of answers that are exactly the words i to i + k, 0 where
        there is no such span.
    costs: of each word, above 0, [words].

    An answer survives when all its words are kept, so a word alone may be worth nothing. Greedy by density: of all
    spans take the one that completes the most expected answers per cost of its words that are not kept yet; its score
    is that density. Only spans that overlap depend on each other, so each round takes every span that is denser than
    those it can overlap. A span that became denser because part of it was taken ranks right behind that part.

    >>> span_ranking(np.array([[0.1, 0.9], [0.1, 0.0], [0.5, 0.0]]), np.ones(3))
    array([0.55, 0.55, 0.5 ])
    """
    words, longest = expected.shape
    scores, kept = np.zeros(words), np.zeros(words, bool)
    ends = np.minimum(np.arange(words)[:, None] + np.arange(1, longest + 1), words)  # [words, longest], exclusive
    for _ in range(_MOST_ROUNDS):
        if kept.all():
            return scores
        missing = np.concatenate([[0.0], np.cumsum(np.where(kept, 0.0, costs))])
        density = _densities(expected, missing[ends] - missing[:words, None])
        starts = _peaks(density.max(axis=1), longest)
        _take(starts, ends[starts, density[starts].argmax(axis=1)], density[starts].max(axis=1), scores, kept)
    scores[~kept] = np.maximum(density[~kept, 0], 0.0)
    return scores


def _densities(expected: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Expected answers that keeping each span completes, per cost; -1 where it costs nothing more. [words, longest]"""
    open_ = costs > _NOTHING
    exact = np.where(open_, expected, 0.0)
    sums = exact.copy()  # of all spans inside each span, by inclusion and exclusion of the two one shorter
    for k in range(1, exact.shape[1]):
        sums[:, k] += sums[:, k - 1]
        sums[:-1, k] += sums[1:, k - 1]
        if k > 1:
            sums[:-1, k] -= sums[1:, k - 2]
    return np.where(open_, np.maximum(sums, 0.0) / np.where(open_, costs, 1.0), -1.0)


def _peaks(best: np.ndarray, longest: int) -> np.ndarray:
    """Starts that no start within `longest` words beats; of equal ones the first."""
    padded = np.pad(best, longest - 1, constant_values=-1.0)
    most = np.lib.stride_tricks.sliding_window_view(padded, longest).max(axis=1)  # of each start and those before it
    before = np.concatenate([[-1.0], most[: len(best) - 1]])
    return np.flatnonzero((best >= 0) & (best > before) & (best >= most[longest - 1 :]))


def _take(starts: np.ndarray, ends: np.ndarray, density: np.ndarray, scores: np.ndarray, kept: np.ndarray) -> None:
    """Keep the spans, which do not overlap; their new words score the density, but no more than their kept words."""
    sizes = ends - starts
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    inside = np.arange(sizes.sum()) + np.repeat(starts - firsts, sizes)  # words of all the spans
    least = np.minimum.reduceat(np.where(kept[inside], scores[inside], np.inf), firsts)
    new = ~kept[inside]
    scores[inside[new]] = np.repeat(np.minimum(density, least), sizes)[new]
    kept[inside] = True
