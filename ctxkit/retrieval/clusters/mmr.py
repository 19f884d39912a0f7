"""MMR: hits that are good and unlike those before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxkit.retrieval.clusters.vectors import unit_rows
from ctxkit.retrieval.hit import Hit

_DECIMALS = 9


def mmr(hits: Sequence[Hit], vectors: np.ndarray, k: int | None = None, *, balance: float = 0.7) -> list[Hit]:
    """The hits re-ordered by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), the first k of them.

    Each next hit is the argmax of lambda * worth - (1 - lambda) * cosine with the nearest one already taken. Its worth
    is its score as a share of the best score, not its relevance, which falls too steeply to be weighed against cosine.

    vectors: one per hit, [hits, dims]. balance: lambda in [0, 1]; 1.0 keeps the order of scores. k: None for all.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"`balance` must be in [0, 1], got {balance!r}")
    points = unit_rows(vectors, len(hits))
    worth = _worth(hits)
    nearest, left = np.zeros(len(hits)), np.ones(len(hits), bool)
    taken: list[Hit] = []
    for _ in range(len(hits) if k is None else min(k, len(hits))):
        marginal = np.round(balance * worth - (1 - balance) * nearest, _DECIMALS)
        at = int(np.where(left, marginal, -np.inf).argmax())
        left[at] = False
        similar = points @ points[at]
        nearest = np.maximum(nearest, similar) if taken else similar
        taken.append(hits[at])
    return taken


def _worth(hits: Sequence[Hit]) -> np.ndarray:
    """Scores as shares of the best, in [0, 1], float64 [hits]."""
    scores = np.array([max(hit.score, 0.0) for hit in hits], np.float64)
    best = scores.max(initial=0.0)
    return scores / best if best > 0 else scores
