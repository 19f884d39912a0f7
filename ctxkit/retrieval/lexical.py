"""Lexical search: BM25 over the words of titles and texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from ctxkit.retrieval.fusion import Run, best_and_ties
from ctxkit.retrieval.growing import Growing
from ctxkit.retrieval.postings import Postings
from ctxkit.retrieval.terms import terms

K1 = 1.2
B = 0.75

# What a term adds to a score is rounded up to a multiple of 2 ** -40. Sums of such multiples are exact, so documents
# that match equally well get equal scores in whatever order their terms are added, and every match adds something.
_GRID = 2.0**40


class LexicalIndex:
    """BM25 (the Lucene variant) over documents that come and go, each a list of terms.

    A document of `length` terms, n of N documents holding the term, scores for each distinct term of the query
    `ln(1 + (N - n + 0.5) / (n + 0.5)) * tf / (tf + K1 * (1 - B + B * length / mean length))`.

    A document is a number, counted from 0 in the order of `add`; numbers stay. Scores are those of an index made anew
    of the documents that were not removed. Any number of threads may search, while none adds or removes. A removed
    document leaves some bytes behind, and no term is forgotten: make a new index when most are removed.
    """

    def __init__(self) -> None:
        self._numbers = _Numbers()
        self._postings = Postings()
        self._lengths = Growing(np.int32)  # [documents], in terms
        self._live = Growing(bool)  # [documents]
        self._documents = 0  # live ones
        self._length = 0  # of all live ones

    def __len__(self) -> int:
        """Documents added so far."""
        return len(self._lengths)

    def add(self, documents: Iterable[Sequence[str]]) -> None:
        """Documents len(self), len(self) + 1, ... hold these terms; the next search finds them."""
        documents = list(documents)
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        length = int(lengths.sum())
        numbers = np.fromiter(map(self._numbers.__getitem__, chain.from_iterable(documents)), np.int64, length)
        self._postings.add(numbers, lengths)
        self._lengths.extend(lengths)
        self._live.extend(np.ones(len(lengths), bool))
        self._documents += len(lengths)
        self._length += length

    def remove(self, documents: Iterable[int]) -> None:
        """Never find these again, and count them no more. Those removed before are no error.

        Raises IndexError for a number that no document has; then none is removed.
        """
        gone = np.unique(np.fromiter(documents, np.int64))
        if len(gone) and (gone[0] < 0 or gone[-1] >= len(self)):
            wrong = gone[(gone < 0) | (gone >= len(self))].tolist()
            raise IndexError(f"no documents {wrong!r} among the {len(self)} that were added")
        gone = gone[self._live.values[gone]]
        self._live.values[gone] = False
        self._documents -= len(gone)
        self._length -= int(self._lengths.values[gone].sum())
        self._postings.remove(gone)

    def search(self, query: str, depth: int, allowed: np.ndarray | None = None) -> Run:
        """The best `depth` that share a term with `query`, and all that tie with the last; equals by the lower number.

        depth: at least 1. allowed: bool [len(self)], None for all. It changes what is found, not the scores.
        """
        scores = self._scores(query)
        positions = np.flatnonzero(scores > 0 if allowed is None else (scores > 0) & allowed)
        return best_and_ties(positions, scores[positions], depth)

    def scores(self, query: str) -> np.ndarray:
        """BM25 of every document, float32 [len(self)]; 0 where it is removed or no term is shared."""
        return self._scores(query).astype(np.float32)

    def _scores(self, query: str) -> np.ndarray:
        """BM25 of every document, float64 [len(self)]."""
        rows = list(self._rows(query))
        if not rows:
            return np.zeros(len(self))
        weights, documents, counts = map(np.concatenate, zip(*rows, strict=True))  # [rows of all terms] each
        points = counts / (counts + self._damping(documents))
        points *= weights
        scores: np.ndarray = np.bincount(documents, np.ceil(points, out=points), len(self))
        scores /= _GRID
        if self._documents < len(self):
            scores[~self._live.values] = 0.0
        return scores

    def _rows(self, query: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Weight, document and count, [rows] each, of each term of the query; removed documents may be among them."""
        for term in dict.fromkeys(terms(query)):
            number = self._numbers.get(term)
            if number is not None and (holders := self._postings.holders(number)):
                weight = math.log1p((self._documents - holders + 0.5) / (holders + 0.5)) * _GRID
                for documents, counts in self._postings.of(number):
                    yield np.full(len(documents), weight), documents, counts

    def _damping(self, documents: np.ndarray) -> np.ndarray:
        """How many occurrences of a term give half of its weight in each of `documents`, float64."""
        damping = self._lengths.values[documents] * (K1 * B * self._documents / self._length)
        damping += K1 * (1 - B)
        return damping


class _Numbers(dict[str, int]):
    """Numbers for terms, from 0: asked for a term that has none, it gives it the next."""

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self)
        return number
