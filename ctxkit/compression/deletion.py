"""Semantic deletion: the words without which a sentence means the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor
from ctxkit.protocols import Encoder, Spanned, Vectors


@dataclass(frozen=True)
class SemanticDeletion(WordCompressor):
    """The semantic compression of TCRA-LLM (arXiv 2310.15556): what moves its sentence's embedding least goes first.

    A word's score is 1 - cos(embedding of the sentence, embedding of the sentence without that word).

    encoder: a single-vector encoder measures each deletion, in one text more per sentence than it has words. A
        multi-vector encoder whose rows know their spans estimates them all from one pass per sentence: as if the
        embedding were the mean of the rows, and the rows of the words that stay did not change.
    most_words: longer sentences are cut into pieces of so many words.
    batch_texts: the encoder is given about so many texts at once; bounds memory, changes no score.

    Raises ValueError for a multi-vector encoder that does not say where its rows stand.
    """

    encoder: Encoder
    most_words: int = 64
    batch_texts: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("most_words", "batch_texts"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")

    @property
    def name(self) -> str:
        return "semantic deletion"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        pieces = [_pieces(words, self.most_words) for words in texts]
        measure = self._estimated if self.encoder.multi_vector else self._measured
        scores = measure([piece for of_text in pieces for piece in of_text])
        return [[score for _ in of_text for score in next(scores)] for of_text in pieces]

    def _measured(self, pieces: Sequence[_Piece]) -> Iterator[list[float]]:
        for batch in _batches(pieces, [len(piece) + 1 for piece in pieces], self.batch_texts):
            texts = [text for piece in batch for text in piece.variants()]
            vectors = _one_each(self.encoder.encode_documents(texts))
            at = 0
            for piece in batch:
                whole, without = vectors[at], vectors[at + 1 : at + 1 + len(piece)]
                yield (((without - whole) ** 2).sum(axis=1) / 2).tolist()  # of unit vectors this is 1 - cos
                at += len(piece) + 1

    def _estimated(self, pieces: Sequence[_Piece]) -> Iterator[list[float]]:
        for batch in _batches(pieces, [1] * len(pieces), self.batch_texts):
            vectors = self.encoder.encode_documents([piece.text for piece in batch])
            if not isinstance(vectors, Spanned):
                raise ValueError(
                    f"{self.encoder.name}, a multi-vector encoder, does not say where its rows stand; take one that "
                    "gives TokenVectors, or a single-vector encoder"
                )
            for i, piece in enumerate(batch):
                yield _moved(piece, vectors[i], vectors.spans[vectors.offsets[i] : vectors.offsets[i + 1]])


@dataclass(frozen=True)
class _Piece:
    """A sentence, or a part of a long one: its words with the white space before them."""

    words: Sequence[str]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def variants(self) -> Iterator[str]:
        """The whole, then without each word."""
        yield self.text
        yield from ("".join((*self.words[:i], *self.words[i + 1 :])) for i in range(len(self)))


def _pieces(words: Words, most_words: int) -> list[_Piece]:
    """All words of a text, in order."""
    starts = [i for i in range(len(words)) if not i or words.sentences[i] != words.sentences[i - 1]]
    ends = [*starts[1:], len(words)]
    return [
        _Piece(words.spaced[first : min(first + most_words, end)])
        for start, end in zip(starts, ends, strict=False)
        for first in range(start, end, most_words)
    ]


def _batches(pieces: Iterable[_Piece], sizes: Iterable[int], most: int) -> Iterator[list[_Piece]]:
    """Runs of pieces, in order, whose sizes are at most `most` together, or one."""
    batch: list[_Piece] = []
    taken = 0
    for piece, size in zip(pieces, sizes, strict=True):
        if batch and taken + size > most:
            yield batch
            batch, taken = [], 0
        batch.append(piece)
        taken += size
    if batch:
        yield batch


def _one_each(vectors: Vectors) -> np.ndarray:
    """A unit vector per text, float64 [texts, dims]; a text in several windows has their mean direction."""
    sums = np.add.reduceat(vectors.values.astype(np.float64), vectors.offsets[:-1], axis=0)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _moved(piece: _Piece, rows: np.ndarray, spans: np.ndarray) -> list[float]:
    """1 - cos(sum of all rows, sum of those that are not of the word), for each word; 0 for one that has no row."""
    ends = np.cumsum([len(word) for word in piece.words])
    placed = spans[:, 1] > spans[:, 0]
    owners = np.searchsorted(ends, spans[placed, 0], "right")
    own = np.zeros((len(piece), rows.shape[1]))  # [words, dims]
    np.add.at(own, owners, rows[placed])
    total = own.sum(axis=0)
    rest = total - own
    lengths = np.linalg.norm(rest, axis=1) * np.linalg.norm(total)
    cosines = np.divide(rest @ total, lengths, out=np.zeros(len(piece)), where=lengths > 1e-9)
    if not placed.any():
        return [0.0] * len(piece)
    return np.maximum(1 - cosines, 0.0).tolist()
