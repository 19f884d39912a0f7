"""One vector per hit, and rows that cosine can compare whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxkit.protocols import Encoder, Vectors
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.hit import Hit


def hit_vectors(hits: Sequence[Hit], encoder: Encoder) -> np.ndarray:
    """The hits' vectors, float32 [hits, dims]: of each the mean of its rows. Encodes the texts, headings included."""
    return pooled(encoder.encode_documents([document_text(hit.chunk) for hit in hits]))


def pooled(vectors: Vectors) -> np.ndarray:
    """The mean row of each text, float32 [texts, dims]; zeros for a text without rows."""
    means = np.zeros((len(vectors), vectors.values.shape[1]), np.float32)
    for i in range(len(vectors)):
        if len(vectors[i]):
            means[i] = vectors[i].mean(axis=0)
    return means


def unit_rows(vectors: np.ndarray, hits: int) -> np.ndarray:
    """The vectors scaled to length 1, float64 [hits, dims + 1].

    A vector of zeros has no direction: all of them get one of their own (the last column), so that they are alike and
    unlike everything else. Raises ValueError where there is not one finite vector for each hit.
    """
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2 or len(rows) != hits:
        raise ValueError(f"`vectors` must be [{hits} hits, dims], got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("`vectors` must be finite")
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1.0)  # squares of tiny numbers would vanish
    rows = np.concatenate([rows, largest == 0], axis=1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
