"""An encoder that needs no model: every word is a pseudo-random direction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.encoders.token_vectors import Rows, joined

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """Bag of hashed words. It knows no semantics: two texts are close only where they share words.

    For tests, and for machines without torch, where it adds little to lexical search. Deterministic everywhere.

    dims: length of a vector.
    multi_vector: one row per word in text order instead of their normalised sum.
    """

    def __init__(self, dims: int = 64, *, multi_vector: bool = False) -> None:
        if dims < 1:
            raise ValueError(f"`dims` must be at least 1, got {dims!r}")
        self._dims = dims
        self._multi_vector = multi_vector
        self._words: dict[str, np.ndarray] = {}

    @classmethod
    def from_name(cls, name: str, *, multi_vector: bool) -> HashingEncoder:
        """The encoder whose `name` an index has recorded."""
        return cls(int(name.rpartition("-")[2]), multi_vector=multi_vector)

    @property
    def name(self) -> str:
        return f"hashing-{self._dims}"

    @property
    def fingerprint(self) -> str:
        return f"hashing/2/{self._dims}/{'multi' if self._multi_vector else 'single'}"

    @property
    def dims(self) -> int:
        return self._dims

    @property
    def multi_vector(self) -> bool:
        return self._multi_vector

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return [len(_WORD.findall(text)) for text in texts]

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors of `texts`: one row per text, or per word. A text without words gets the row of the empty word."""
        if self._multi_vector:
            return joined([self._words_of(text) for text in texts], self._dims)
        return joined(
            [Rows(_normalised(self._words_of(text).values.sum(axis=0, keepdims=True))) for text in texts], self._dims
        )

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode_documents`."""
        return self.encode_documents(texts)

    def _words_of(self, text: str) -> Rows:
        found = [(match.group().lower(), match.span()) for match in _WORD.finditer(text)] or [("", (0, 0))]
        values = np.stack([self._word(word) for word, _ in found])  # [words, dims]
        ids = np.array([_digest(word) >> 33 for word, _ in found], np.int32)
        return Rows(values, ids, np.array([span for _, span in found], np.int32))

    def _word(self, word: str) -> np.ndarray:
        if word not in self._words:
            generator = np.random.default_rng(_digest(word))
            self._words[word] = _normalised(generator.standard_normal((1, self._dims)))[0]
        return self._words[word]


def _digest(word: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _normalised(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
