"""Documents in the order of their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranked:
    """Documents and their float32 scores, best first.

    evidence: int64 [documents, query tokens], the token within its document that answers each query token, or None.
    """

    documents: np.ndarray
    scores: np.ndarray
    evidence: np.ndarray | None = None


def top(documents: np.ndarray, scores: np.ndarray, k: int) -> Ranked:
    """The k best; of equal scores the lower document first."""
    if len(scores) > 4 * k:  # all that can be among them, without sorting the rest
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= least
        documents, scores = documents[kept], scores[kept]
    order = np.lexsort((documents, -scores))[:k]
    return Ranked(documents[order], scores[order])
