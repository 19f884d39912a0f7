"""An encoder that needs no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxkit.protocols import Vectors


class Letters:
    """Vectors are counts of letters."""

    name = fingerprint = "letters"
    dims = 26
    multi_vector = False

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        rows = np.array([[text.lower().count(chr(97 + n)) + 1e-3 for n in range(26)] for text in texts], np.float32)
        rows = rows.reshape(-1, 26)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return Vectors(rows, np.arange(len(texts) + 1))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.encode_documents(texts)
