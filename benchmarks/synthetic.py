"""Token vectors that look like an encoder's, for benchmarks of search: no model, no data, any size."""

from __future__ import annotations

import numpy as np

from ctxkit.protocols import Vectors

DIMS = 128
WORDS, TOPICS, NOISE_DIMS = 5_000, 100, 16


def synthetic(tokens: int, queries: int, seed: int = 0) -> tuple[Vectors, np.ndarray, Vectors, np.ndarray]:
    """Documents that mix two topics; a token is its word in its topic, disturbed in few dimensions, as encoders do.

    A query is words of one document, disturbed again. Returns the documents' vectors and int [tokens] their vocabulary
    ids, and the same of the queries.
    """
    rng = np.random.default_rng(seed)
    words, topics, spread = directions(rng, WORDS), directions(rng, TOPICS), directions(rng, NOISE_DIMS)
    lengths = rng.integers(20, 97, tokens // 58)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shares = np.repeat(rng.dirichlet([1.0, 1.0], len(lengths)).astype(np.float32), lengths, axis=0)
    pairs = np.repeat(rng.integers(0, TOPICS, (len(lengths), 2)), lengths, axis=0)
    ids = (WORDS * rng.random(offsets[-1]) ** 3).astype(np.int32)

    def disturbed(rows: np.ndarray, size: float) -> np.ndarray:
        return unit(rows + size * (rng.standard_normal((len(rows), NOISE_DIMS), np.float32) @ spread))

    values = np.empty((offsets[-1], DIMS), np.float32)
    for at in range(0, len(values), 1 << 16):
        here = slice(at, at + (1 << 16))
        topic = (shares[here, :, None] * topics[pairs[here]]).sum(axis=1)
        values[here] = disturbed(words[ids[here]] + topic, 0.1)
    documents = Vectors(values, offsets)
    asked = [offsets[i] + rng.choice(lengths[i], 17, replace=False) for i in rng.choice(len(lengths), queries)]
    rows = np.concatenate(asked)
    both = Vectors(disturbed(values[rows], 0.05), np.arange(0, len(rows) + 1, 17, dtype=np.int64))
    return documents, ids, both, ids[rows]


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    return unit(rng.standard_normal((count, DIMS), np.float32))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
