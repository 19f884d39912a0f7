"""Sentence scores: how likely each sentence of some texts is the one that a question asks for."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.compression.by_question.asked import Asked
from ctxkit.compression.by_question.passage import Passage, Range, neighbourhoods
from ctxkit.compression.text.score import bm25, importance
from ctxkit.protocols import Encoder

if TYPE_CHECKING:
    from ctxkit.compression.by_question.sentence_vectors import Evidence, SentenceVectors, TokenVectors


@dataclass(frozen=True)
class SentenceWeights:
    """What the methods count for, those that there are; each is divided by its best score before.

    lexical: BM25. dense: one vector per sentence. tokens: one vector per token. neighbourhood: what a sentence's
    surroundings count for beside the sentence itself, by all methods.

    Tuned on every other article of xquad-en; `benchmarks/answer_in_context.py` reports the others beside them. Half or
    twice a weight moves the answers in 64 tokens by about a point. Meetings (QMSum) like their neighbourhood: 0.6 in
    place of 1.25 costs BM25 five points of the gold turns at a tenth of the tokens, and xquad-en gives up nothing.
    """

    lexical: float = 1.0
    dense: float = 1.0
    tokens: float = 4.0
    neighbourhood: float = 1.25

    def __post_init__(self) -> None:
        wrong = [name for name, value in vars(self).items() if not value >= 0]
        if wrong:
            raise ValueError(f"`{wrong[0]}` must be 0 or more, got {getattr(self, wrong[0])!r}")


class SentenceScorer:
    """Scores the sentences of all texts of a request at once, and remembers the texts for the next question.

    encoder: one vector per text; token_encoder: one per token; None does without. shortlist: token vectors are made
    for so many texts, the best by the other methods.

    BM25 knows a sentence's neighbourhood too (its text, or the sentences around it), as the others do: a sentence says
    "he" where its neighbour has the name. Without encoders nothing but the standard library computes.
    """

    def __init__(
        self, encoder: Encoder | None, token_encoder: Encoder | None, weights: SentenceWeights, shortlist: int
    ) -> None:
        self._weights = weights
        self._shortlist = shortlist
        self._dense, self._tokens = _signals(encoder, token_encoder)
        self._known: dict[str, Passage] = {}

    def passages(self, texts: Sequence[str]) -> list[Passage]:
        """The texts, cut into sentences; those of the last call are not cut again. Threads may call it at once."""
        before = self._known
        known = {text: before.get(text) or Passage.of(text) for text in texts}
        self._known = known
        return [known[text] for text in texts]

    def scores(self, passages: Sequence[Passage], question: str) -> list[list[float]]:
        """In [0, 1], [passages][sentences]. By place, facts and common words where nothing fits the question."""
        ranges = neighbourhoods(passages)
        mixed = self._mixed(passages, ranges, question) if ranges else []
        if not any(mixed):
            return [importance(passage.sentences, "") for passage in passages]
        found = iter(mixed)
        return [[next(found) for _ in range(len(passage))] for passage in passages]

    def _mixed(self, passages: Sequence[Passage], ranges: Sequence[Range], question: str) -> list[float]:
        weights = self._weights
        signals = [(weights.lexical, _lexical(passages, ranges, Asked(question)))]
        if question.strip():
            if self._dense is not None:
                signals.append((weights.dense, self._dense.evidence(passages, ranges, question)))
            if self._tokens is not None:
                among = self._best(passages, _mix(signals, weights.neighbourhood))
                signals.append((weights.tokens, self._tokens.evidence(passages, ranges, question, among)))
        return _mix(signals, weights.neighbourhood)

    def _best(self, passages: Sequence[Passage], scores: Sequence[float]) -> list[int]:
        """Numbers of the passages that hold the best sentences."""
        found = iter(scores)
        best = [max((next(found) for _ in range(len(passage))), default=-1.0) for passage in passages]
        order = sorted((i for i in range(len(best)) if best[i] >= 0), key=lambda i: -best[i])
        return sorted(order[: self._shortlist])


def _signals(
    encoder: Encoder | None, token_encoder: Encoder | None
) -> tuple[SentenceVectors | None, TokenVectors | None]:
    if encoder is None and token_encoder is None:
        return None, None
    from ctxkit.compression.by_question.sentence_vectors import (  # numpy, which BM25 does without
        SentenceVectors,
        TokenVectors,
    )

    return (
        None if encoder is None else SentenceVectors(encoder),
        None if token_encoder is None else TokenVectors(token_encoder),
    )


def _mix(signals: Sequence[tuple[float, Evidence]], neighbourhood: float) -> list[float]:
    """The weighted mean of what speaks for each sentence and for its neighbourhood."""
    total = sum(weight for weight, _ in signals) * (1 + neighbourhood) or 1.0
    mixed = [0.0] * len(signals[0][1][0])
    for weight, (own, around) in signals:
        mine, near = weight / total / (max(own) or 1.0), weight * neighbourhood / total / (max(around) or 1.0)
        mixed = [so_far + mine * a + near * b for so_far, a, b in zip(mixed, own, around, strict=True)]
    return mixed


def _lexical(passages: Sequence[Passage], ranges: Sequence[Range], asked: Asked) -> Evidence:
    """BM25 among all sentences, and among all neighbourhoods."""
    tallies = [tally for passage in passages for tally in passage.tallies]
    hits = [{term: tally[term] for term in asked.terms if term in tally} for tally in tallies]
    lengths = [tally.total() for tally in tallies]
    places = {range_: i for i, range_ in enumerate(dict.fromkeys(ranges))}
    joined = [_sum(hits[start:end]) for start, end in places]
    around = bm25(joined, [sum(lengths[start:end]) for start, end in places])
    return bm25(hits, lengths), [around[places[range_]] for range_ in ranges]


def _sum(hits: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Tally[str] = Tally()
    for hit in hits:
        if hit:
            total.update(hit)
    return total
