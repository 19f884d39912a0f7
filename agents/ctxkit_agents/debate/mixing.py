"""Mixing: from logits to the weights with which embeddings are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctxkit.models.local.sampling import make_distribution
from ctxkit.protocols import Sampling


@dataclass(frozen=True)
class Mixing:
    """sampling: its temperature, top_k and top_p, in this order; at 0 all weight is on the likeliest token.

    partial: where a token has this probability or more, all weight is on it; None never does that.
    """

    sampling: Sampling
    partial: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """float32 logits [vocabulary] -> probabilities, float32 [vocabulary]."""
        if self.sampling.temperature == 0:
            return _one_hot(logits)
        p = make_distribution(self.sampling)(logits)
        return _one_hot(p) if self.partial is not None and float(p.max()) >= self.partial else p


def _one_hot(scores: Tensor) -> Tensor:
    p = torch.zeros_like(scores)
    p[scores.argmax()] = 1
    return p
