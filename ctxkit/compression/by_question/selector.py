"""SentenceSelector: the sentences that answer the question, and the best words of the last one that has room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate

from ctxkit.compression.baselines import RareWords
from ctxkit.compression.by_question.antecedents import lifted
from ctxkit.compression.by_question.asked import Asked
from ctxkit.compression.by_question.passage import Passage
from ctxkit.compression.by_question.sentence_scores import SentenceScorer, SentenceWeights
from ctxkit.compression.sources.cut import Fragment, Source
from ctxkit.compression.sources.word_source import LateWordSource, WordSource
from ctxkit.compression.text.words import Words, has_words
from ctxkit.compression.text_compressor import WordCompressor
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Encoder

_OPENED_FIRST, _OPENED_AT_ONCE = 4, 32
_STEP = 1e-6  # between sentences of one score, and between a sentence's first word and its last


@dataclass(frozen=True)
class SentenceSelector(WordCompressor):
    """Sentences of all texts in one ranking by the question; in a sentence, the words that may be the answer go last.

    Whole sentences read well and keep what they say; so words only decide about the sentence at the edge of the budget.

    encoder: one vector per text; token_encoder: one vector per token. With neither, BM25. weights: of the three.
    words: the worth of words without the question, by which a sentence at the edge is thinned; the question lifts what
        may be its answer (`Asked`).
    spread: how much of the scale of sentences, [0, 1], a word's worth makes out. At 0 a sentence is whole before the
        next one begins; above, the weak words of good sentences make room for the strong words of the next.
    coherent: a sentence that begins with "He" or "However" brings the one before it, right behind itself.
    shortlist: token vectors are made for so many texts, the best by the other methods.

    A question without any match falls back to place, facts and common words. Which texts were given is remembered with
    their vectors until the next request, so that asking again about the same texts costs little; to keep vectors on
    disk, give encoders that do.

    After RECOMP (arXiv 2310.04408) and Provence (arXiv 2501.16214), without their training.
    """

    encoder: Encoder | None = None
    token_encoder: Encoder | None = None
    words: WordCompressor = field(default=RareWords(), repr=False)
    weights: SentenceWeights = field(default=SentenceWeights())
    spread: float = 0.0
    coherent: bool = True
    shortlist: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder is not None and self.encoder.multi_vector:
            raise ValueError(f"`encoder` must give one vector per text; pass {self.encoder.name!r} as `token_encoder`")
        if self.token_encoder is not None and not self.token_encoder.multi_vector:
            raise ValueError(
                f"`token_encoder` must give one vector per token; pass {self.token_encoder.name!r} as `encoder`"
            )
        if not 0 <= self.spread <= 1:
            raise ValueError(f"`spread` must be in [0, 1], got {self.spread!r}")
        if self.shortlist < 1:
            raise ValueError(f"`shortlist` must be at least 1, got {self.shortlist!r}")

    @property
    def name(self) -> str:
        return "sentences"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        passages = self._scorer.passages([words.text for words in texts])
        return self.word_scores(texts, self.sentence_scores(passages, question), question)

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        """Texts of prose are cut into words when their best sentence comes near the budget, and not before."""
        sources = self.structured_sources(texts, request)
        prose = [i for i, source in enumerate(sources) if source is None and has_words(texts[i], 2)]
        passages = self._scorer.passages([texts[i] for i in prose])
        ranked = self.sentence_scores(passages, request.question)
        order = sorted(range(len(prose)), key=lambda k: -max(ranked[k]))
        for some in _batches(order):
            batch = _Batch(self, [passages[k].text for k in some], [ranked[k] for k in some], request)
            for at, k in enumerate(some):
                best = max(ranked[k]) + _STEP + self.spread
                sources[prose[k]] = LateWordSource(best, partial(batch.source, at))
        return sources

    def sentence_scores(self, passages: Sequence[Passage], question: str) -> list[list[float]]:
        """What each sentence is worth, no two alike, [passages][sentences]; about in [0, 1]."""
        scores = self._scorer.scores(passages, question)
        if self.coherent:
            scores = [lifted(own, passage.leaning) for own, passage in zip(scores, passages, strict=True)]
        return _apart(scores)

    def word_scores(
        self, texts: Sequence[Words], sentences: Sequence[Sequence[float]], question: str
    ) -> list[Sequence[float]]:
        """What each word is worth, [texts][words]: its sentence first."""
        asked = Asked(question)
        scale = _STEP + self.spread
        found: list[Sequence[float]] = []
        for words, ranked, own in zip(texts, sentences, self.words.scores(texts, question), strict=True):
            worth = asked.worth(words, _scaled(own))
            found.append([ranked[i] + scale * value for i, value in zip(words.sentences, worth, strict=True)])
        return found

    @cached_property
    def _scorer(self) -> SentenceScorer:
        return SentenceScorer(self.encoder, self.token_encoder, self.weights, self.shortlist)


class SentenceSource(WordSource):
    """Words whose gaps are marked where whole sentences are missing between two that are there."""

    kind = "sentences"
    facts_by = 1.0  # who asks wants the facts of the sentences that answer, and not those of all others first

    def fragments(self, count: int) -> list[Fragment]:
        return self.words.fragments(self.order[:count], by_sentence=True)


class _Batch:
    """Some texts that are cut into words together."""

    def __init__(
        self, selector: SentenceSelector, texts: Sequence[str], ranked: Sequence[Sequence[float]], request: LevelRequest
    ) -> None:
        self._selector, self._texts, self._ranked, self._request = selector, texts, ranked, request

    def source(self, at: int) -> WordSource:
        return self._sources[at]

    @cached_property
    def _sources(self) -> list[WordSource]:
        selector, request = self._selector, self._request
        words = [Words.of(text, selector.pins, request.question) for text in self._texts]
        scores = selector.word_scores(words, self._ranked, request.question)
        pairs = zip(words, scores, strict=True)
        return [SentenceSource(cut, own, request.counter, selector.fidelity) for cut, own in pairs]


def _batches(order: Sequence[int]) -> Iterator[Sequence[int]]:
    """Few at first, as few get in; then more and more, so that a model that scores words sees full batches."""
    start, size = 0, _OPENED_FIRST
    while start < len(order):
        yield order[start : start + size]
        start, size = start + size, min(2 * size, _OPENED_AT_ONCE)


def _apart(scores: Sequence[Sequence[float]]) -> list[list[float]]:
    """The scores, a step apart at least, in the same order; equals by their place."""
    starts = list(accumulate(map(len, scores), initial=0))
    flat = [score for own in scores for score in own]
    order = sorted(range(len(flat)), key=lambda i: (flat[i], -i))
    for rank, i in enumerate(order):
        flat[i] += _STEP * rank * 2
    return [flat[start:end] for start, end in zip(starts, starts[1:], strict=False)]


def _scaled(values: Sequence[float]) -> list[float]:
    """Mapped onto [0, 1]; all 0 where they are equal."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
