"""Logistic regression on a handful of features, fitted by Newton's method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST_STEPS = 50
_CLOSE_ENOUGH = 1e-8


@dataclass(frozen=True)
class Logistic:
    """A probability from features: 1 / (1 + exp(-(bias + weights . (x - mean) / scale)))."""

    weights: tuple[float, ...]
    bias: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, rows: np.ndarray, labels: Sequence[bool], *, penalty: float = 1.0) -> Logistic:
        """rows: [n, features]. labels: n of them, both kinds. penalty: half of it times the squared weights is added.

        Raises ValueError where there is nothing to tell apart.
        """
        rows, wanted = np.asarray(rows, float), np.asarray(labels, float)
        if rows.ndim != 2 or len(rows) != len(wanted) or not 0 < wanted.sum() < len(wanted):
            yes = int(wanted.sum()) if wanted.ndim == 1 else 0
            raise ValueError(f"needs examples of both kinds, one row each; got {yes} of {len(wanted)} true")
        mean, scale = rows.mean(0), rows.std(0)
        scale[scale == 0] = 1.0
        design = np.hstack([(rows - mean) / scale, np.ones((len(rows), 1))])
        ridge = np.diag([*[penalty] * rows.shape[1], 1e-9])  # the bias is free
        weights = np.zeros(design.shape[1])
        for _ in range(_MOST_STEPS):
            chance = _sigmoid(design @ weights)
            slope = design.T @ (chance - wanted) + ridge @ weights
            step = np.linalg.solve((design.T * (chance * (1 - chance))) @ design + ridge, slope)
            weights -= step
            if np.abs(step).max() < _CLOSE_ENOUGH:
                break
        return cls(tuple(weights[:-1].tolist()), float(weights[-1]), tuple(mean.tolist()), tuple(scale.tolist()))

    def probability(self, row: Sequence[float]) -> float:
        """Of one row of features. Raises ValueError where it has another number of them."""
        if len(row) != len(self.weights):
            raise ValueError(f"was fitted on {len(self.weights)} features, got {len(row)}")
        placed = (np.asarray(row, float) - self.mean) / self.scale
        return float(_sigmoid(placed @ np.asarray(self.weights) + self.bias))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))
