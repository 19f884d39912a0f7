"""ACT: attention sinks amid the text are calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Observed, Policy


@dataclass(frozen=True)
class ACT(Policy):
    """Tokens that draw attention without meaning lose some of it (Yu et al. 2024, arXiv 2406.15765).

    beta: what is left of it; the other tokens take the rest in proportion. threshold: a sink is a token, not the first,
    that got a larger share on average, in the passes before, from the queries behind it. heads: (layer, KV head) pairs
    that are calibrated, all by default; a KV head's query heads share their sinks.
    """

    beta: float = 0.4
    threshold: float = 0.1
    heads: frozenset[tuple[int, int]] | None = None
    needs = frozenset({"attention"})

    def __post_init__(self) -> None:
        if not (0 <= self.beta <= 1 and 0 < self.threshold < 1):
            raise ValueError(f"`beta` must be in [0, 1] and `threshold` in (0, 1), got {self}")

    def observe(self, seen: Observed) -> Tensor:
        known = torch.from_numpy(np.maximum(seen.queries[0] - seen.positions, 0)).to(seen.before)  # queries until now
        all_of = torch.from_numpy(np.maximum(seen.queries[-1] + 1 - seen.positions, 1)).to(seen.before)
        return (seen.before * known + seen.probabilities.mean(1).sum(1)) / all_of

    def regroup(self, layer: int, heads: Array, positions: Array, scores: Array) -> tuple[Array, float] | None:
        chosen = np.array([self.heads is None or (layer, int(head)) in self.heads for head in heads])
        return (scores > self.threshold) & (positions > 0) & chosen[:, None], self.beta
