"""compress: texts in fewer tokens, and where each character of what is left came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ctxkit.compression.shown import fragment_html
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.sources.cut import Cut, Fragment, Source
from ctxkit.compression.sources.joint import cut_together
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter


@dataclass(frozen=True)
class Compressed:
    """What `compress` made of one text.

    source: the original. fragments: the output in order, slices of the source and markers. tokens: of `text`.
    source_tokens: of the original.
    """

    source: str
    fragments: tuple[Fragment, ...]
    tokens: int
    source_tokens: int

    @cached_property
    def text(self) -> str:
        return "".join(fragment.text for fragment in self.fragments)

    @property
    def rate(self) -> float:
        """Share of the tokens that is left; 1.0 for an empty source."""
        return self.tokens / self.source_tokens if self.source_tokens else 1.0

    @cached_property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Half-open char spans of the source that were left out."""
        return tuple(Cut(self.text, self.tokens, 0.0, self.fragments).gaps(len(self.source)))


@dataclass(frozen=True)
class Compression:
    """What `compress` made of some texts, in their order. method: of the compressor."""

    results: tuple[Compressed, ...]
    method: str

    @property
    def texts(self) -> list[str]:
        return [result.text for result in self.results]

    @property
    def text(self) -> str:
        """The texts that are left, with blank lines between them."""
        return "\n\n".join(text for text in self.texts if text)

    @property
    def tokens(self) -> int:
        """Tokens of all texts, each counted alone."""
        return sum(result.tokens for result in self.results)

    @property
    def source_tokens(self) -> int:
        return sum(result.source_tokens for result in self.results)

    @property
    def rate(self) -> float:
        return self.tokens / self.source_tokens if self.source_tokens else 1.0

    def _repr_html_(self) -> str:
        return fragment_html(self)

    def __repr__(self) -> str:
        return (
            f"Compression({self.tokens:,} of {self.source_tokens:,} tokens by {self.method}, {len(self.results)} texts)"
        )


def compress(
    texts: str | Sequence[str],
    compressor: TextCompressor,
    *,
    tokens: int | None = None,
    rate: float | None = None,
    question: str = "",
    counter: Counter,
) -> Compression:
    """Texts in at most `tokens` tokens of `counter` in all, or in the share `rate` of what they take.

    The budget is one for all texts: it goes to the best words wherever they stand. Texts that fit come back as they
    are, byte for byte; so does everything at rate 1.

    Raises ValueError unless exactly one of `tokens` (0 or more) and `rate` (0 to 1) is given.
    """
    return prepare(texts, compressor, question=question, counter=counter).at(tokens=tokens, rate=rate)


def prepare(
    texts: str | Sequence[str], compressor: TextCompressor, *, question: str = "", counter: Counter
) -> Prepared:
    """Texts to be compressed to several sizes: the compressor reads them once, when first needed."""
    return Prepared((texts,) if isinstance(texts, str) else tuple(texts), compressor, question, TotalCounter(counter))


@dataclass(frozen=True)
class Prepared:
    """Texts read by a compressor; every size comes from the same ranking."""

    texts: tuple[str, ...]
    compressor: TextCompressor
    question: str
    counter: Counter

    @cached_property
    def source_tokens(self) -> int:
        """Tokens of all texts, each counted alone."""
        return sum(self._sizes)

    def at(self, *, tokens: int | None = None, rate: float | None = None) -> Compression:
        """The texts in at most that many tokens. Raises ValueError as `compress` does."""
        limit = self._limit(tokens, rate)
        cuts: list[Cut | None] = [None] * len(self.texts)
        if self.source_tokens > limit:
            cuts = cut_together(self.texts, self._sources, self.counter, limit)
        results = [_result(*one) for one in zip(self.texts, self._sizes, cuts, strict=True)]
        return Compression(tuple(results), self.compressor.name)

    @cached_property
    def _sizes(self) -> list[int]:
        return self.counter.count_batch(self.texts)

    @cached_property
    def _sources(self) -> list[Source | None]:
        return self.compressor.sources(self.texts, LevelRequest(self.question, self.counter))

    def _limit(self, tokens: int | None, rate: float | None) -> int:
        if (tokens is None) == (rate is None):
            raise ValueError(f"give either `tokens` or `rate`, got tokens={tokens!r} and rate={rate!r}")
        if rate is not None and not 0 <= rate <= 1:
            raise ValueError(f"`rate` must be in [0, 1], got {rate!r}")
        if tokens is not None and tokens < 0:
            raise ValueError(f"`tokens` must be 0 or more, got {tokens!r}")
        return tokens if tokens is not None else math.floor(self.source_tokens * (rate or 0.0) + 1e-9)


def _result(text: str, size: int, cut: Cut | None) -> Compressed:
    if cut is None:
        return Compressed(text, (Fragment(text, 0),) if text else (), size, size)
    return Compressed(text, cut.fragments, cut.tokens, size)
