"""An encoder that needs no model: every word is a pseudo-random direction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from ctxkit.protocols import Vectors

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
        return f"hashing/1/{self._dims}/{'multi' if self._multi_vector else 'single'}"

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
        rows = [self._rows(text) for text in texts]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)  # [texts + 1]
        values = np.concatenate(rows) if rows else np.zeros((0, self._dims), np.float32)  # [rows, dims]
        return Vectors(values, offsets)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode_documents`."""
        return self.encode_documents(texts)

    def _rows(self, text: str) -> np.ndarray:
        rows = np.stack([self._word(word) for word in _WORD.findall(text.lower()) or [""]])  # [words, dims]
        return rows if self._multi_vector else _normalised(rows.sum(axis=0, keepdims=True))

    def _word(self, word: str) -> np.ndarray:
        if word not in self._words:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
            self._words[word] = _normalised(np.random.default_rng(seed).standard_normal((1, self._dims)))[0]
        return self._words[word]


def _normalised(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
