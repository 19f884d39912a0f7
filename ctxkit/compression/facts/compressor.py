"""FactWords: without a question, the words that a reader will ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ctxkit.compression.encoder.token_model import TokenReader
from ctxkit.compression.facts.encoder import minilm_reader
from ctxkit.compression.facts.head import KeepHead
from ctxkit.compression.facts.shapes import word_shapes
from ctxkit.compression.text.score import STOP_WORDS
from ctxkit.compression.text.word_scores import is_word
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor


@dataclass(frozen=True)
class FactWords(WordCompressor):
    """Keeps phrases that carry facts: names, numbers, dates, what was done to what. Needs no question and no network.

    Three layers of all-MiniLM-L6-v2 read the text, and a head of 100 KB (`KeepHead`) says which spans of words are
    likely to answer a question that is asked later. Much the same task as LLMLingua-2's (arXiv 2403.12968), with spans
    in place of tokens and labels that may be given away (MODEL_CARD.md beside this file).

    prior: what a word that is no stop word is worth by itself, in expected answers: 0.01 costs nothing on articles and
        helps on transcripts, where 0.02 to 0.05 are better still. device: as torch names it; None takes a GPU where
        there is one.

    Raises MissingExtra without the packaged encoder, at first use.
    """

    prior: float = 0.01
    device: str | None = None
    head: KeepHead = field(default_factory=KeepHead.packaged, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior < 0:
            raise ValueError(f"`prior` must be 0 or more, got {self.prior!r}")

    @property
    def name(self) -> str:
        return "facts"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        if not any(map(len, texts)):
            return [[] for _ in texts]
        read = self._reader.read(texts)
        shapes = np.concatenate([word_shapes(words.spaced) for words in texts])
        owners = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
        scores = self.head.scores(read.per_word(), shapes, read.tokens_per_word, owners, self._priors(texts))
        return [of_text.tolist() for of_text in read.per_text(scores)]

    @cached_property
    def _reader(self) -> TokenReader:
        return minilm_reader(max(self.head.layers), self.head.window, self.device)

    def _priors(self, texts: Sequence[Words]) -> np.ndarray:
        """[words of all texts]"""
        worth = [_says_something(word) for words in texts for word in words.proper]
        return self.prior * np.array(worth, float)


def _says_something(word: str) -> bool:
    return word.casefold() not in STOP_WORDS and is_word(word)
