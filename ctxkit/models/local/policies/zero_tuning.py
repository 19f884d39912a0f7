"""ZeroTuning: more or less attention to the first token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Policy, View


@dataclass(frozen=True)
class ZeroTuning(Policy):
    """The first token's probability times gamma, renormalised (Han et al. 2025, arXiv 2505.11739).

    gamma: above 1 sharpens the sink and flattens the rest, below 1 the other way round. heads: bool
    [layers][heads], which are tuned; all by default. layers: which are tuned; all by default.

    Exactly a bias of log gamma on one logit.
    """

    gamma: float
    heads: tuple[tuple[bool, ...], ...] | None = None
    layers: tuple[int, ...] | None = None
    apart = 1

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"`gamma` must be a number above 0, got {self.gamma!r}")

    def bias(self, view: View, layer: int) -> Array | None:
        if self.layers is not None and layer not in self.layers:
            return None
        tuned = np.ones(1) if self.heads is None else np.asarray(self.heads[layer])
        return (math.log(self.gamma) * tuned[:, None] * (view.runs.position == 0)).astype(np.float32)
