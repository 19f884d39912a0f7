"""XTR's scores of documents from the few tokens that were retrieved (arXiv 2304.01982)."""

from __future__ import annotations

import numpy as np


def imputed(similar: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The documents that own a retrieved token, ascending, and their scores.

    A document gets, for each query token, the best similarity of its retrieved tokens. Where none of its tokens was
    retrieved, it gets the smallest similarity that was: what is missing cannot be more. A query token that retrieved
    nothing adds nothing.

    similar: float32 [query tokens, depth]. owners: int64 [query tokens, depth], documents, -1 where nothing was found.
    Returns int64 [found] and float64 [found].

    >>> imputed(np.array([[0.9, 0.5], [0.8, 0.4]]), np.array([[7, 3], [7, 7]]))
    (array([3, 7]), array([0.9, 1.7]))
    """
    found = owners >= 0
    floors = similar.min(axis=1, where=found, initial=np.inf)
    floors = np.where(found.any(axis=1), floors, 0.0).astype(np.float64)
    lanes, ranks = np.nonzero(found)
    keys = owners[lanes, ranks] * len(similar) + lanes  # one for each pair of document and query token
    order = np.argsort(keys, kind="stable")
    keys, starts = _groups(keys[order])
    tops = np.maximum.reduceat(similar[lanes, ranks][order], starts) if len(starts) else np.zeros(0)
    documents, starts = _groups(keys // max(len(similar), 1))
    gains = tops - floors[keys % max(len(similar), 1)]
    sums = np.add.reduceat(gains, starts) if len(starts) else gains
    return documents, sums + floors.sum()


def _groups(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of an ascending array, and where each begins."""
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    return ordered[starts], starts
