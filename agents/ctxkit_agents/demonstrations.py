"""Demonstrations: which examples to annotate, and which of them to show before a question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctxkit.context import Part, turn
from ctxkit.protocols import Encoder

_DECIMALS = 6  # of cosines: what a BLAS rounds otherwise must not change a choice
_BLOCK = 1024  # rows of cosines at a time


@dataclass(frozen=True, slots=True)
class Example:
    """An input and the right output for it."""

    input: str
    output: str


@dataclass(frozen=True)
class Demonstrations:
    """Shows the examples that are most like the question, as turns of a conversation before it.

    pool: the examples, with inputs all different. encoder: one vector per text; the pool is encoded once.
    k: at most so many. diversity: 0 takes the most similar; above, the first is the most similar and each next one the
        best by (1 - diversity) x cosine with the question - diversity x cosine with the nearest taken already (maximal
        marginal relevance, Carbonell and Goldstein, SIGIR 1998).

    Each example is a group of two turns whose relevance is its cosine, so that `fit` takes as many as the window
    holds, the most similar first. The most similar stands last, next to the question.
    Raises ValueError for an empty pool, two equal inputs, an encoder of many vectors per text, and bad numbers.
    """

    pool: Sequence[Example]
    encoder: Encoder
    k: int = 8
    diversity: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.diversity <= 1:
            raise ValueError(f"`k` must be 1 or more and `diversity` in [0, 1], got {self.k!r} and {self.diversity!r}")
        inputs = [example.input for example in self.pool]
        if not inputs or len(set(inputs)) < len(inputs):
            raise ValueError(f"`pool` must hold one or more examples with different inputs, got {len(inputs)}")
        _check_single(self.encoder)

    @cached_property
    def _vectors(self) -> np.ndarray:
        """Of the inputs, float32 [examples, dims]."""
        return _encoded([example.input for example in self.pool], self.encoder)

    def chosen(self, question: str) -> list[tuple[int, float]]:
        """Numbers in the pool and cosines with the question, in the order in which they were chosen."""
        asked = self.encoder.encode_queries([question]).values[0]
        cosines = np.round(self._vectors @ asked, _DECIMALS)  # [examples]
        nearest = np.full(len(cosines), -1.0)  # cosine with the nearest that is taken
        left = np.ones(len(cosines), bool)
        taken: list[int] = []
        for _ in range(min(self.k, len(cosines))):
            marginal = (1 - self.diversity) * cosines - self.diversity * nearest if taken else cosines
            marginal = np.round(marginal, _DECIMALS)
            at = int(np.where(left, marginal, -np.inf).argmax())
            left[at] = False
            nearest = np.maximum(nearest, self._vectors @ self._vectors[at])
            taken.append(at)
        return [(at, float(cosines[at])) for at in taken]

    def parts(self, question: str) -> list[Part]:
        """The chosen examples, two turns each; put them before the question."""
        by_similarity = sorted(self.chosen(question), key=lambda one: (one[1], -one[0]))
        return [part for at, cosine in by_similarity for part in self._turns(at, cosine)]

    def _turns(self, at: int, cosine: float) -> Iterator[Part]:
        example, name = self.pool[at], f"demonstration/{at}"
        worth = min(1.0, max(0.0, cosine))
        yield turn("user", example.input, id=f"{name}/input", group=name, relevance=worth, verbatim=True)
        yield turn("assistant", example.output, id=f"{name}/output", group=name, relevance=worth, verbatim=True)


def select_to_annotate(
    texts: Sequence[str],
    encoder: Encoder,
    n: int,
    *,
    k: int = 150,
    rho: float = 10.0,
    confidence: Callable[[Sequence[int]], Sequence[float]] | None = None,
) -> list[int]:
    """Which n of the texts to annotate, so that they are varied and like many others: vote-k (arXiv 2209.01975).

    Each text votes for its k nearest by cosine. A text's score is the sum of the votes for it; a vote counts
    rho ** -(how many that the voter votes for are chosen already). The highest score is chosen, again and again; of
    equals the first.

    confidence: of the second stage. Called once with the first tenth of the choice (one at least), by number; gives
        per text how sure a model is of its answer when these are its demonstrations (its mean log-probability, say).
        The rest are sorted by it into n buckets; of the n - n / 10 least sure ones each gives its text with the highest
        score. Without, the first stage chooses all.

    Returns the numbers in the order of choice. Raises ValueError for bad numbers, an n above the number of texts, an
    encoder of many vectors per text, and where `confidence` does not give one number per text.
    """
    if not 1 <= n <= len(texts):
        raise ValueError(f"`n` must be from 1 to the number of texts ({len(texts):,}), got {n!r}")
    if k < 1 or rho <= 1:
        raise ValueError(f"`k` must be at least 1 and `rho` above 1, got {k!r} and {rho!r}")
    _check_single(encoder)
    votes = _Votes(_nearest(_encoded(texts, encoder), k), rho)
    for _ in range(n if confidence is None else max(1, n // 10)):
        votes.choose(votes.best(np.flatnonzero(votes.open)))
    if confidence is not None and len(votes.chosen) < n:
        for bucket in _buckets(votes, n, np.asarray(confidence(tuple(votes.chosen)), np.float64)):
            votes.choose(votes.best(bucket))
    return votes.chosen


class _Votes:
    """The graph of nearest neighbours, int64 [texts, k], and what each text's votes still count."""

    def __init__(self, neighbours: np.ndarray, rho: float) -> None:
        self.neighbours, self.rho = neighbours, rho
        self.counts = np.ones(len(neighbours))
        self.open = np.ones(len(neighbours), bool)
        self.chosen: list[int] = []

    def best(self, among: np.ndarray) -> int:
        voters = self.neighbours[self.open]
        weights = np.repeat(self.counts[self.open], self.neighbours.shape[1])
        scores = np.bincount(voters.ravel(), weights, minlength=len(self.open))
        return int(among[scores[among].argmax()])

    def choose(self, text: int) -> None:
        self.open[text] = False
        self.counts[(self.neighbours == text).any(axis=1)] /= self.rho
        self.chosen.append(text)


def _buckets(votes: _Votes, n: int, sure: np.ndarray) -> Iterator[np.ndarray]:
    """The texts that are open, least sure first, in n parts of equal size; as many of these as are still to choose."""
    if sure.shape != votes.open.shape or not np.isfinite(sure).all():
        raise ValueError(f"`confidence` must give a finite number for each of {len(votes.open):,} texts")
    rest = np.flatnonzero(votes.open)
    ranked = rest[np.argsort(sure[rest], kind="stable")]
    wanted = n - len(votes.chosen)
    filled = [bucket for bucket in np.array_split(ranked, min(n, len(ranked))) if len(bucket)]
    yield from filled[:wanted]


def _nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other rows of each row by cosine, int64 [rows, min(k, rows - 1)]."""
    count = len(vectors)
    found = np.empty((count, min(k, count - 1)), np.int64)
    for start in range(0, count, _BLOCK):
        cosines = np.round(vectors[start : start + _BLOCK] @ vectors.T, _DECIMALS)
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf  # no text votes for itself
        found[start : start + _BLOCK] = np.argsort(-cosines, axis=1, kind="stable")[:, : found.shape[1]]
    return found


def _encoded(texts: Sequence[str], encoder: Encoder) -> np.ndarray:
    return np.asarray(encoder.encode_documents(texts).values, np.float32)


def _check_single(encoder: Encoder) -> None:
    if encoder.multi_vector:
        raise ValueError(f"`encoder` must give one vector per text, and {encoder.name!r} gives one per token")
