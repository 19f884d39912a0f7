"""Scores of words without a model: what the question asks for, rare words, function words last."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Callable, Sequence

from ctxkit.compression.text.score import STOP_WORDS, relevance
from ctxkit.compression.text.words import Words

Weigh = Callable[[Sequence[Words], str], Sequence[Sequence[float]]]
"""How much each word of each text matters, [texts][words], given a question; comparable between the texts of a call."""

_ASKED = 2.0
_FUNCTION_WORD = 0.2


def plain_scores(texts: Sequence[Words], question: str) -> list[list[float]]:
    """Inverse sentence frequency, more in sentences that match the question; function words are worth a fifth."""
    asked = _asked(texts, question) if question else {}
    return [
        [
            (_FUNCTION_WORD if word.casefold() in STOP_WORDS else 1.0)
            * rare
            * (1 + _ASKED * asked.get((i, sentence), 0.0))
            for word, rare, sentence in zip(words.proper, found, words.sentences, strict=True)
        ]
        for i, (words, found) in enumerate(zip(texts, rarity(texts), strict=True))
    ]


def rarity(texts: Sequence[Words]) -> list[list[float]]:
    """Inverse sentence frequency of each word among all the texts; punctuation is worth nothing. [texts][words]"""
    folded = [[word.casefold() for word in words.proper] for words in texts]
    seen = {(i, s, w) for i, words in enumerate(texts) for s, w in zip(words.sentences, folded[i], strict=True)}
    frequency = Tally(word for _, _, word in seen)
    count = len({(i, s) for i, s, _ in seen})
    return [[is_word(word) * math.log((count + 1) / frequency[word]) for word in found] for found in folded]


def is_word(word: str) -> bool:
    """Whether it has a letter or a digit."""
    return any(map(str.isalnum, word))


def _asked(texts: Sequence[Words], question: str) -> dict[tuple[int, int], float]:
    """How well each sentence, by number of its text and its own, matches the question."""
    sentences: dict[tuple[int, int], list[str]] = {}
    for i, words in enumerate(texts):
        for sentence, word in zip(words.sentences, words.proper, strict=True):
            sentences.setdefault((i, sentence), []).append(word)
    matches = relevance([" ".join(found) for found in sentences.values()], question)
    return dict(zip(sentences, matches, strict=True))
