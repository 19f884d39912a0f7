"""How many clusters: by silhouette, as the paper has it, a fixed number, or as few as cover the relevance."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ctxkit.retrieval.clusters.space import Space

Clusters = Literal["silhouette", "paper", "budget"] | int
"""The rule for k; a number is that number, where there are so many different hits."""

PAPER_K = 4
COVERED = 0.9
_MOST_BY_SILHOUETTE = 8


def clustered(space: Space, k: Clusters) -> np.ndarray:
    """The labels that the rule gives, int64 [n]. Raises ValueError for another rule, or a number below 1."""
    if k == "silhouette":
        return _by_silhouette(space)
    if k == "budget":
        return _by_coverage(space)
    if k == "paper":
        return space.labels(PAPER_K)
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"`k` must be 'silhouette', 'paper', 'budget' or a number from 1, got {k!r}")
    return space.labels(k)


def _by_silhouette(space: Space) -> np.ndarray:
    """The k of 2..min(8, n/2) of best silhouette, the smallest of equals.

    The silhouette knows no single cluster: where it finds nothing above 0, coverage decides.
    """
    tried = [space.labels(k) for k in range(2, min(_MOST_BY_SILHOUETTE, len(space) // 2) + 1)]
    scores = [round(space.silhouette(labels), 9) for labels in tried]
    if not tried or max(scores) <= 0:
        return _by_coverage(space)
    return tried[scores.index(max(scores))]


def _by_coverage(space: Space) -> np.ndarray:
    """The smallest k whose representatives cover 90 % of the summed relevance."""
    enough = COVERED * float(space.relevance.sum()) - 1e-9
    possible = space.coverable() >= enough
    for k in range(max(int(possible.argmax()), 1), len(space)):
        labels = space.labels(k)
        if float(space.covered(labels).sum()) >= enough:
            return labels
    return space.labels(max(len(space), 1))
