"""The rankings that every method has to beat: random words, the head of the text, rare words, no stop words."""

from __future__ import annotations

import math
import random
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.text.score import STOP_WORDS
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
        folded = [[word.casefold() for word in words.proper] for words in texts]
        sentences = {
            (i, s, w) for i, words in enumerate(texts) for s, w in zip(words.sentences, folded[i], strict=True)
        }
        count = len({(i, s) for i, s, _ in sentences})
        frequency = Tally(word for _, _, word in sentences)
        return [[_wordy(word) * math.log((count + 1) / frequency[word]) for word in found] for found in folded]


@dataclass(frozen=True)
class NoStopWords(WordCompressor):
    """Function words and punctuation go first, then the end of the text."""

    @property
    def name(self) -> str:
        return "stop words"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        return [
            [
                _wordy(word) * (word.casefold() not in STOP_WORDS) - i / max(len(words), 1)
                for i, word in enumerate(words.proper)
            ]
            for words in texts
        ]


def _wordy(word: str) -> bool:
    return any(char.isalnum() for char in word)
