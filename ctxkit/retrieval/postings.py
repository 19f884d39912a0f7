"""Postings: which documents hold a term, and how often; documents come and go."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctxkit.retrieval.growing import Growing

_LOOSE_SHARE = 0.25  # of the rows; more of them are sorted in, so that a row is sorted a few times at most
_LOOSE_ROWS = 4096  # what is never worth sorting

Holding = tuple[np.ndarray, np.ndarray]
"""Documents that hold a term, int32 [holding], each once, and how often each holds it, int32 [holding]."""


@dataclass(frozen=True)
class _Sorted:
    """Rows by term: those of term t are `starts[t]` to `starts[t + 1]`. starts: int64 [terms + 1]."""

    starts: np.ndarray
    documents: np.ndarray
    counts: np.ndarray

    def of(self, term: int) -> Holding:
        here = slice(self.starts[term], self.starts[term + 1]) if term + 1 < len(self.starts) else slice(0)
        return self.documents[here], self.counts[here]


class Postings:
    """A row for each document and each distinct term in it, kept both ways: by document and by term.

    Terms are numbers from 0. Documents are numbers from 0, in the order of `add`; numbers stay. What is added waits in
    a tail, and what is removed is only marked, until both are a quarter of all; then everything is sorted by term.
    """

    def __init__(self) -> None:
        self._terms = Growing(np.int32)  # [rows], by document
        self._counts = Growing(np.int32)  # [rows]
        self._starts = Growing(np.int64)  # [documents], the first row of each
        self._sizes = Growing(np.int64)  # [documents], rows of each; 0 once it is removed
        self._holders = Growing(np.int64)  # [terms]
        self._sorted = _Sorted(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))
        self._tail: dict[int, array[int]] = {}  # term -> document, count, document, count, ...
        self._loose = 0  # rows in the tail, and rows of removed documents

    def add(self, terms: np.ndarray, lengths: np.ndarray) -> None:
        """The next documents. terms: int64 [sum of lengths], as they come in the text. lengths: int64 [documents]."""
        documents, numbers, counts = _distinct(terms, lengths)
        sizes = np.bincount(documents, minlength=len(lengths))
        first = len(self._sizes)
        self._starts.extend(len(self._terms) + np.cumsum(sizes) - sizes)
        self._sizes.extend(sizes)
        self._terms.extend(numbers)
        self._counts.extend(counts)
        self._holders.extend(np.zeros(max(int(numbers.max(initial=-1)) + 1 - len(self._holders), 0)))
        np.add.at(self._holders.values, numbers, 1)
        if not self._sort_if_loose(len(numbers)):
            self._append(numbers, documents + first, counts)

    def remove(self, documents: np.ndarray) -> None:
        """Forget the terms of `documents`, int64 [removed], each once. Removing one again does nothing."""
        rows = _ranges(self._starts.values[documents], self._sizes.values[documents])
        np.subtract.at(self._holders.values, self._terms.values[rows], 1)
        self._sizes.values[documents] = 0
        self._sort_if_loose(len(rows))

    def holders(self, term: int) -> int:
        """How many documents hold `term`, those that were removed not counted; 0 for a term that none ever held."""
        return int(self._holders.values[term]) if term < len(self._holders) else 0

    def of(self, term: int) -> Iterator[Holding]:
        """The documents that hold `term`, each once in all that is yielded; removed ones may be among them."""
        yield self._sorted.of(term)
        if (tail := self._tail.get(term)) is not None:
            documents, counts = np.array(tail, np.int32).reshape(-1, 2).T
            yield documents, counts

    def _append(self, terms: np.ndarray, documents: np.ndarray, counts: np.ndarray) -> None:
        tail = self._tail
        for term, document, count in zip(terms.tolist(), documents.tolist(), counts.tolist(), strict=True):
            if term in tail:
                tail[term].extend((document, count))
            else:
                tail[term] = array("i", (document, count))

    def _sort_if_loose(self, rows: int) -> bool:
        """Count `rows` more as loose; whether that was enough to sort."""
        self._loose += rows
        enough = self._loose > max(_LOOSE_ROWS, _LOOSE_SHARE * len(self._terms))
        if enough:
            self._sort()
        return enough

    def _sort(self) -> None:
        """Bring the tail in and drop the rows of removed documents."""
        sizes = self._sizes.values
        if sizes.sum() < len(self._terms):
            self._drop_removed(sizes)
        terms = self._terms.values
        order = np.argsort(terms, kind="stable")
        documents = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        starts = np.concatenate(([0], np.cumsum(np.bincount(terms, minlength=len(self._holders)))))
        self._sorted = _Sorted(starts, documents[order], self._counts.values[order])
        self._tail = {}
        self._loose = 0

    def _drop_removed(self, sizes: np.ndarray) -> None:
        rows = _ranges(self._starts.values, sizes)
        terms, counts = self._terms.values[rows], self._counts.values[rows]
        self._terms, self._counts = Growing(np.int32), Growing(np.int32)
        self._terms.extend(terms)
        self._counts.extend(counts)
        self._starts.values[:] = np.cumsum(sizes) - sizes


def _distinct(terms: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Document, term and count of each distinct term of each document, by document, then by term."""
    span = int(terms.max(initial=0)) + 1
    keys, counts = np.unique(np.repeat(np.arange(len(lengths)) * span, lengths) + terms, return_counts=True)
    documents, numbers = np.divmod(keys, span)
    return documents, numbers, counts


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The rows of several ranges, one after the other.

    >>> _ranges(np.array([7, 0, 3]), np.array([2, 0, 3])).tolist()
    [7, 8, 3, 4, 5]
    """
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
