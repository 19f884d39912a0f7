"""The rankings that every method has to beat: random words, the head of the text, rare words, no stop words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.text.score import STOP_WORDS
from ctxkit.compression.text.word_scores import is_word, rarity
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor


@dataclass(frozen=True)
class RandomWords(WordCompressor):
    """Words by chance, the same ones for the same seed and texts."""

    seed: int = 0

    @property
    def name(self) -> str:
        return "random"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        draw = random.Random(self.seed)
        return [[draw.random() for _ in range(len(words))] for words in texts]


@dataclass(frozen=True)
class Head(WordCompressor):
    """The beginning of each text: plain truncation, at words."""

    @property
    def name(self) -> str:
        return "head"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        return [[-i / max(len(words), 1) for i in range(len(words))] for words in texts]


@dataclass(frozen=True)
class RareWords(WordCompressor):
    """Words that stand in few of the texts' sentences first (inverse document frequency)."""

    @property
    def name(self) -> str:
        return "idf"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        return [*rarity(texts)]


@dataclass(frozen=True)
class NoStopWords(WordCompressor):
    """Function words and punctuation go first, then the end of the text."""

    @property
    def name(self) -> str:
        return "stop words"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        return [
            [
                is_word(word) * (word.casefold() not in STOP_WORDS) - i / max(len(words), 1)
                for i, word in enumerate(words.proper)
            ]
            for words in texts
        ]


def _wordy(word: str) -> bool:
    return any(char.isalnum() for char in word)
