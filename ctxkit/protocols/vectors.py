"""Texts as vectors, and what a search says of its hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Vectors:
    """Vectors of some texts, ragged: text i owns rows `offsets[i]:offsets[i + 1]` of `values`.

    A single-vector encoder gives one row per text, a multi-vector encoder one row per token.

    values: float32 [rows, dims], L2-normalised rows.
    offsets: int64 [texts + 1], starts at 0, ends at rows.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


@dataclass(frozen=True)
class TokenVectors(Vectors):
    """`Vectors` with one row per token.

    token_ids: int32 [rows], ids of the encoder's own vocabulary. Token-aware clustering makes one k-means per id.
    spans: int32 [rows, 2], half-open character spans in the row's own text; empty (0, 0) for tokens that stand in no
        text: special tokens, markers, the masks that a query is padded with.
    """

    token_ids: np.ndarray
    spans: np.ndarray


@runtime_checkable
class Spanned(Protocol):
    """Vectors that know where in the text each row stands: half-open char spans, int32 [rows, 2]; (0, 0): nowhere."""

    @property
    def spans(self) -> np.ndarray: ...


class Encoder(Protocol):
    """Text to vectors. `fingerprint` changes whenever the same text would get other vectors."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dims(self) -> int: ...

    @property
    def multi_vector(self) -> bool: ...

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as this encoder cuts it; chunk sizes are measured with it."""
        ...

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors: ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which bytes of a chunk answered the query: half-open byte span in the chunk's text, and how strongly."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Match:
    """Which token of a chunk answered a token of the query best: its half-open byte span in the chunk's text.

    asked: the query's token as text. similarity: the inner product of both vectors.
    asked_at: where in the query that token begins, in characters; -1 where nobody knows.
    """

    start: int
    end: int
    asked: str
    similarity: float
    asked_at: int = -1


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where one retrieval method put a hit: its name, the rank (from 1) and that method's own score."""

    method: str
    rank: int
    score: float
