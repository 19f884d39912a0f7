"""LogN: queries far behind what the model was trained on are sharpened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Policy


@dataclass(frozen=True)
class LogN(Policy):
    """The query scale of Entropy-ABF (Zhang et al. 2024, arXiv 2401.07004), without its fine-tuning.

    trained_tokens: the window the model was trained on. Query number n (from 1) is multiplied by
    log n / log trained_tokens, and by no less than 1, so that attention over more tokens is as sharp as over few.
    first_layer: layers before it are left alone.
    """

    trained_tokens: int
    first_layer: int = 2

    def __post_init__(self) -> None:
        if self.trained_tokens < 2:
            raise ValueError(f"`trained_tokens` must be at least 2, got {self.trained_tokens!r}")

    def query_scale(self, positions: Array, layer: int) -> Array | None:
        if layer < self.first_layer:
            return None
        return np.maximum(1.0, np.log(positions + 1.0) / np.log(self.trained_tokens)).astype(np.float32)
