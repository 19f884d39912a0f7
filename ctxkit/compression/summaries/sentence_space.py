"""Sentences as vectors: which are near the centroid of all, and which say what another has said."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ctxkit.compression.sources.counted import SURROGATE
from ctxkit.compression.text.score import place, terms
from ctxkit.protocols import Encoder

LEAD = 0.25
"""How much the place in the text counts against the centroid."""

_WHOLE_TERMS = 9  # a sentence of fewer is worth less; MEAD cuts off below as many words
_MOST_PICKS = 512  # sentences that are ranked by what they add; the rest by what they add to these
_DECIMALS = 6  # sums that agree so far are equal, whatever the order of summation
_LEAST = 1e-3


class Space(Protocol):
    """Unit vectors of n sentences; a sentence without words may have zeros."""

    def central(self) -> np.ndarray:
        """Cosine of each with the centroid, [n]."""
        ...

    def near(self, i: int) -> np.ndarray:
        """Cosine of each with sentence i, [n]."""
        ...


class TermSpace:
    """Term frequencies times log(1 + n / sentences with the term): the sentences are the only corpus at hand.

    Sparse: non-zero number j is `weights[j]`, of sentence `rows[j]` and term `columns[j]`, ordered by sentence.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        found = [Tally(terms(sentence)) for sentence in sentences]
        number: dict[str, int] = {}
        self.columns = np.array([number.setdefault(word, len(number)) for one in found for word in one], np.int64)
        self.rows = np.repeat(np.arange(len(found)), [len(one) for one in found])
        self.starts = np.searchsorted(self.rows, np.arange(len(found) + 1))
        counts = np.array([n for one in found for n in one.values()], np.float64)
        sentences_with = np.bincount(self.columns, minlength=len(number))
        weights = counts * np.log1p(len(found) / np.maximum(sentences_with, 1))[self.columns]
        lengths = np.sqrt(self._by_row(weights**2))
        self.weights = weights / lengths[self.rows]

    def central(self) -> np.ndarray:
        return self._cosines(_unit(np.bincount(self.columns, self.weights)))

    def near(self, i: int) -> np.ndarray:
        own = slice(self.starts[i], self.starts[i + 1])
        vector = np.zeros(int(self.columns.max(initial=0)) + 1)
        vector[self.columns[own]] = self.weights[own]
        return self._cosines(vector)

    def _cosines(self, vector: np.ndarray) -> np.ndarray:
        return self._by_row(self.weights * vector[self.columns]) if len(self.weights) else self._by_row(self.weights)

    def _by_row(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.rows, values, minlength=len(self.starts) - 1)


class EncodedSpace:
    """The vectors of an encoder, [n, dims]; the mean row of a sentence that has several."""

    def __init__(self, sentences: Sequence[str], encoder: Encoder) -> None:
        texts = [SURROGATE.sub("\ufffd", sentence).strip() for sentence in sentences]
        vectors = encoder.encode_documents(texts)
        sums = np.zeros((len(texts), vectors.values.shape[1]), np.float32)
        np.add.at(sums, np.repeat(np.arange(len(texts)), np.diff(vectors.offsets)), vectors.values)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        self.points = sums / np.where(lengths > 0, lengths, 1.0)

    def central(self) -> np.ndarray:
        return self.points @ _unit(self.points.sum(axis=0))

    def near(self, i: int) -> np.ndarray:
        return self.points @ self.points[i]


def by_centroid(space: Space, sentences: Sequence[str], balance: float) -> list[float]:
    """A score above 0 for each sentence, that falls in the order in which maximal marginal relevance takes them.

    What a sentence adds, balance * worth - (1 - balance) * cosine with the nearest one taken, only falls while others
    are taken. So what it added when it was taken is a score by which all are in that order.
    """
    lengths = np.array([len(terms(sentence)) for sentence in sentences])
    worth = _worth(space, lengths)
    worded = lengths > 0
    left = worded.copy()
    nearest = np.zeros(len(sentences))
    scores = np.zeros(len(sentences))
    for _ in range(min(_MOST_PICKS, int(worded.sum()))):
        scores[left] = np.round(balance * worth - (1 - balance) * nearest, _DECIMALS)[left]
        at = int(np.where(left, scores, -np.inf).argmax())
        left[at] = False
        nearest = np.maximum(nearest, np.clip(space.near(at), 0.0, 1.0))
    scores[left] = np.round(balance * worth - (1 - balance) * nearest, _DECIMALS)[left]
    return [float(score) for score in np.where(worded, scores + (1 - balance) + 2 * _LEAST, _LEAST)]


def _worth(space: Space, lengths: np.ndarray) -> np.ndarray:
    """How central each sentence is and how early or late, [n], in [0, 1]. lengths: terms of each.

    A cosine says nothing of how much is said, and "OK, the timetable." is all about the timetable.
    """
    central = np.clip(space.central(), 0.0, None) * np.minimum(lengths / _WHOLE_TERMS, 1.0)
    places = np.array([place(i, len(lengths)) for i in range(len(lengths))])
    return (1 - LEAD) * central / max(central.max(initial=0.0), _LEAST) + LEAD * places


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
