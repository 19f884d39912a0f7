"""Keyformer: H2O with noise, so that a token that was lucky early does not stay for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ctxkit.models.local.policies.base import Observed
from ctxkit.models.local.policies.h2o import H2O

if TYPE_CHECKING:
    from torch import Tensor

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Keyformer(H2O):
    """As `H2O`, but scores are sums of a Gumbel softmax of the logits (Adnan et al. 2024, arXiv 2403.09054).

    tau_init, tau_delta: the temperature is tau_init while a prompt is read, and tau_init + n * tau_delta in the n-th
        pass over a single token after it. seed: of the noise; the same texts in the same passes keep the same tokens.

    A KV head's score is the sum over the heads of its group, each with noise of its own.
    """

    tau_init: float = 1.0
    tau_delta: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau_init <= 0 or self.tau_delta < 0 or self.seed < 0:
            raise ValueError(f"`tau_init` must be above 0, `tau_delta` and `seed` at least 0; got {self!r}")

    def observe(self, seen: Observed) -> Tensor:
        drawn, step = seen.state.get("drawn", 0), seen.state.get("step", 0)
        step = step + 1 if seen.pass_tokens == 1 else 0
        seen.state.update(drawn=drawn + 1, step=step)
        draws = np.random.default_rng((self.seed, seen.layer, seen.label, drawn))
        waits = draws.standard_exponential(tuple(seen.logits.shape), dtype=np.float32)
        noise = torch.from_numpy(-np.log(np.maximum(waits, _TINY))).to(seen.logits.device)
        noisy = (seen.logits + noise) / (self.tau_init + step * self.tau_delta)
        return seen.before + noisy.softmax(-1).sum((1, 2))
