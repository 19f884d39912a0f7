"""An encoder without what all its vectors have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ctxkit.protocols import Encoder, Vectors
from ctxkit.retrieval.encoders.wrapped import WrappedEncoder


class CentredEncoder(WrappedEncoder):
    """Another encoder's vectors less the mean vector of documents, or of queries, and of length 1 again.

    Vectors that nobody trained to be compared lie in a narrow cone ("all-but-the-top", arXiv 1702.01417, without its
    further directions), and queries in another one than documents: that they are short says more than their subject.

    encoder: any Encoder, also a `CachedEncoder`.
    centres: float32 [2, dims], of documents and of queries. `fit` makes them; np.save and np.load keep them. An index
        opens with the same centres only.

    Raises ValueError for centres of another shape.
    """

    def __init__(self, encoder: Encoder, centres: np.ndarray) -> None:
        if np.shape(centres) != (2, encoder.dims):
            raise ValueError(f"`centres` must be [2, {encoder.dims}] for {encoder.name!r}, got {np.shape(centres)!r}")
        super().__init__(encoder)
        self.centres = np.array(centres, np.float32)

    @classmethod
    def fit(cls, encoder: Encoder, documents: Sequence[str], queries: Sequence[str]) -> CentredEncoder:
        """With the means of some texts; a hundred of each kind do. Raises ValueError for less than two."""
        if min(len(documents), len(queries)) < 2:
            raise ValueError(f"a mean needs two texts of each kind, got {len(documents)} and {len(queries)}")
        found = encoder.encode_documents(documents), encoder.encode_queries(queries)
        return cls(encoder, np.stack([vectors.values.mean(0) for vectors in found]))

    @property
    def name(self) -> str:
        return f"{self._encoder.name}+centred"

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.centres.tobytes(), digest_size=16).hexdigest()
        return f"centred/1/{digest}/{self._encoder.fingerprint}"

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors of `texts`, of the encoder's own kind."""
        return _centred(self._encoder.encode_documents(texts, progress=progress), self.centres[0])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts`."""
        return _centred(self._encoder.encode_queries(texts), self.centres[1])


def _centred(vectors: Vectors, centre: np.ndarray) -> Vectors:
    rows = vectors.values - centre
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return replace(vectors, values=(rows / np.maximum(lengths, 1e-12)).astype(np.float32))
