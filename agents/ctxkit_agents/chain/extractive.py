"""ExtractiveWorker: quotes what a question asks for, by BM25, without any model."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ctxkit.compression.text.score import bm25, importance, terms
from ctxkit.compression.text.segment import divided
from ctxkit.context.compose import planning_texts
from ctxkit.protocols import Counter
from ctxkit_agents.chain.evidence import Evidence, Quote, blocks, evidence_of, passages
from ctxkit_agents.chain.source import Chunk, Source, SourceLike, read_source

LONGEST_CHARS = 600
"""Of a quote. Longer sentences, as in transcripts without punctuation, are cut at white space."""


@dataclass(frozen=True)
class ExtractiveWorker:
    """Reads in place of a model: the same quotes every time, and no token spent.

    Sentences are ranked by BM25 against the question and by that of the sentences around them, over the whole source;
    so what stands beside an answer comes along. Without a question, by place, facts and common words.

    around: what the surroundings count for beside the sentence itself, both divided by their best.
    reach: sentences to each side that are its surroundings, the nearest counting most.

    The defaults were chosen on the meetings that `benchmarks/agents/chain.py` reports.
    Raises ValueError for numbers below 0.
    """

    around: float = 0.5
    reach: int = 32

    def __post_init__(self) -> None:
        if not self.around >= 0 or self.reach < 0:
            raise ValueError(f"`around` and `reach` must be 0 or more, got {self.around!r} and {self.reach!r}")

    def evidence(
        self, source: SourceLike, question: str = "", *, tokens: int = 2048, counter: Counter
    ) -> tuple[Evidence, ...]:
        """The best sentences, in the order of the source, in at most `tokens` tokens as passages of a prompt.

        Raises ValueError for a source without text and for `tokens` below 1.
        """
        if tokens < 1:
            raise ValueError(f"`tokens` must be at least 1, got {tokens!r}")
        read = read_source(source)
        return evidence_of(self.quotes(read, question, tokens, counter), read)

    def quotes(self, source: Source, question: str, tokens: int, counter: Counter) -> list[Quote]:
        """As `evidence`, by their offsets in the whole source; their worker is 0."""
        spans = _sentences(source)
        scores = self._scores([source.text[start:end] for start, end in spans], question)
        order = sorted(range(len(spans)), key=lambda i: (-scores[i], i))

        def best(count: int) -> list[Quote]:
            return sorted(Quote(*spans[i], 0) for i in order[:count])

        low, high = 0, len(order)
        while low < high:  # the most sentences that fit, each size counted whole
            middle = (low + high + 1) // 2
            fits = _prompt_tokens(best(middle), source, counter) <= tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        return best(low)

    def _scores(self, sentences: Sequence[str], question: str) -> list[float]:
        wanted = frozenset(terms(question))
        tallies = [Tally(terms(sentence)) for sentence in sentences]
        hits = [{term: tally[term] for term in wanted if term in tally} for tally in tallies]
        own = bm25(hits, [tally.total() for tally in tallies])
        if not any(own):
            return importance(sentences, "")
        near = _surroundings(own, self.reach)
        best_own, best_near = max(own), max(near)
        return [a / best_own + self.around * b / best_near for a, b in zip(own, near, strict=True)]


def by_chunk(quotes: Iterable[Quote], chunks: Sequence[Chunk]) -> tuple[Quote, ...]:
    """The quotes with the numbers of the chunks that they begin in."""
    starts = [chunk.start for chunk in chunks]
    return tuple(replace(quote, worker=bisect_right(starts, quote.start)) for quote in quotes)


def _sentences(source: Source) -> list[tuple[int, int]]:
    """Spans of the sentences that have text, without labels and white space around them."""
    found: list[tuple[int, int]] = []
    for start, end in pairwise(source.bounds):
        inside = source.clipped(start, end)
        if inside is None:
            continue
        text = source.text[slice(*inside)]
        for low, high in pairwise(divided(text, [0, len(text)], LONGEST_CHARS)[0]):
            piece = text[low:high]
            first = inside[0] + low + len(piece) - len(piece.lstrip())
            last = inside[0] + low + len(piece.rstrip())
            if first < last:
                found.append((first, last))
    return found


def _surroundings(scores: Sequence[float], reach: int) -> list[float]:
    """For each the sum of the scores around it, weighted by a triangle that is 0 beyond `reach`."""
    around = [0.0] * len(scores)
    for at, score in enumerate(scores):
        if score:
            for i in range(max(0, at - reach), min(len(scores), at + reach + 1)):
                around[i] += score * (1 - abs(i - at) / (reach + 1))
    return around


def _prompt_tokens(quotes: Sequence[Quote], source: Source, counter: Counter) -> int:
    """About what they take as passages, and not less."""
    parts = passages(blocks(quotes, source), source, "")
    return sum(counter.count_batch([text for part in parts for text in planning_texts(part)]))
