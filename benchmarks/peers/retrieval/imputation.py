"""XTR (arXiv 2304.01982) over the tokens that some index finds, then exact MaxSim of the best documents."""

from __future__ import annotations

import numpy as np
from harness import Given, K


def ranked(given: Given, query: np.ndarray, similar: np.ndarray, rows: np.ndarray, rerank: int) -> np.ndarray:
    """The K best of the `rerank` best documents.

    query: float32 [query tokens, dims]. similar, rows: [query tokens, found], the nearest tokens; a row below 0: none.
    """
    lane, rank = np.nonzero(rows >= 0)
    floors = similar.min(axis=1, where=rows >= 0, initial=np.inf)
    gains = similar[lane, rank] - floors[lane]
    keys = given.owners[rows[lane, rank]] * len(query) + lane
    order = np.lexsort((-gains, keys))
    keys, first = np.unique(keys[order], return_index=True)
    documents, place = np.unique(keys // len(query), return_inverse=True)
    sums = np.bincount(place, gains[order][first])
    best = documents[np.argpartition(-sums, min(rerank, len(sums)) - 1)[:rerank]]
    return best[np.argsort(-maxsim(given, query, best), kind="stable")[:K]]


def maxsim(given: Given, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """float32 [documents]. Documents have a token or more."""
    lengths = given.lengths[documents]
    firsts = np.cumsum(lengths) - lengths
    rows = np.arange(lengths.sum()) + np.repeat(given.offsets[documents] - firsts, lengths)
    return np.maximum.reduceat(given.values[rows] @ query.T, firsts).sum(axis=1)
