from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctxkit.protocols import Vectors

DIMS = 64


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def clustered() -> Callable[..., Vectors]:
    """clustered(documents, rows_each=1): normalised rows around 40 directions, those of a document around one."""

    def make(documents: int, rows_each: int = 1, seed: int = 0, dims: int = DIMS) -> Vectors:
        directions = np.random.default_rng(99).standard_normal((40, dims))
        rng = np.random.default_rng(seed)
        counts = np.full(documents, 1) if rows_each == 1 else rng.integers(1, rows_each + 1, documents)
        near = np.repeat(directions[rng.integers(0, 40, documents)], counts, axis=0)
        values = unit(near + 0.6 * rng.standard_normal(near.shape)).astype(np.float32)
        return Vectors(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    return make


@pytest.fixture(scope="session")
def brute() -> Callable[..., np.ndarray]:
    """brute(vectors, query): float64 [documents], MaxSim of each, -inf for one without rows.

    For a query of one row this is what the document's best row scores.
    """

    def score(vectors: Vectors, query: np.ndarray) -> np.ndarray:
        scores = np.full(len(vectors), -np.inf)
        filled = np.flatnonzero(np.diff(vectors.offsets))
        if len(filled):
            similar = vectors.values.astype(np.float64) @ query.T.astype(np.float64)
            scores[filled] = np.maximum.reduceat(similar, vectors.offsets[filled]).sum(axis=1)
        return np.round(scores, 6)

    return score
