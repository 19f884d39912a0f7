"""How retentions choose: the best by score beside what has to stay, and the neighbours' say in a score."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ctxkit.models.local.paging.runs import Array


def with_best(must: Array, scores: Array, tokens: int) -> Array:
    """bool [n]: `must`, and the best of the others until there are `tokens`; of equals the earlier.

    must: bool [n]. scores: [n]. Gives more than `tokens` where `must` already has more.
    """
    others = np.flatnonzero(~must)
    wanted = max(0, tokens - int(must.sum()))
    kept = must.copy()
    kept[others[np.argsort(-scores[others], kind="stable")[:wanted]]] = True
    return kept


def pooled(scores: Array, width: int, pooling: Literal["average", "max"]) -> Array:
    """float32 [n]: each score with its neighbours, `width` (odd) of them in all; zeros stand beyond both ends."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(scores, width // 2), width)
    return around.max(-1) if pooling == "max" else around.mean(-1)
