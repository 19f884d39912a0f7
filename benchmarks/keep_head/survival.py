"""The measure: of how many questions an answer still stands in what is kept; and the baselines."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from passages import Passage

from ctxkit.compression.text.score import terms
from ctxkit.protocols import Counter

RATES = (0.2, 0.33, 0.5, 0.7)


def kept_words(passage: Passage, scores: np.ndarray, rate: float, counter: Counter) -> np.ndarray:
    """Numbers of the best words, ascending, as many as have at most `rate` of the text's tokens when joined."""
    order = np.argsort(-scores, kind="stable")
    budget = int(rate * passage.tokens)
    count = bisect_right(range(1, len(order) + 1), budget, key=lambda n: counter.count(joined(passage, order[:n])))
    return np.sort(order[:count])


def joined(passage: Passage, words: np.ndarray) -> str:
    return "".join(passage.words[i] for i in np.sort(words))


def survival(passages: Sequence[Passage], scores: Sequence[np.ndarray], counter: Counter) -> list[float]:
    """Share of the questions, at each of RATES."""
    found, asked = np.zeros(len(RATES)), 0
    for passage, own in zip(passages, scores, strict=True):
        asked += len(passage.answers)
        for column, rate in enumerate(RATES):
            text = joined(passage, kept_words(passage, own, rate, counter))
            found[column] += sum(any(string in text for string in strings) for strings in passage.answers)
    return [float(share) for share in found / asked]


def baselines(passages: Sequence[Passage]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Names and scores of what needs no training."""
    random = np.random.default_rng(0)
    yield "random", [random.random(len(p.words)) for p in passages]
    yield "head truncation", [-np.arange(len(p.words), dtype=float) for p in passages]
    frequency = Tally(term for p in passages for term in {word.strip().lower() for word in p.words})
    yield "IDF", [np.array([rarity(word, frequency, len(passages)) for word in p.words]) for p in passages]
    yield "stop words first", [np.array([bool(terms(w)) - i * 1e-6 for i, w in enumerate(p.words)]) for p in passages]


def rarity(word: str, frequency: Mapping[str, int], texts: int) -> float:
    bare = word.strip().lower()
    return math.log(1 + texts / frequency[bare]) if any(map(str.isalnum, bare)) else 0.0


def row(name: str, values: Sequence[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"


def heading(title: str) -> str:
    rates = " | ".join(f"{rate:.0%}" for rate in RATES)
    return f"\n| {title} | {rates} |\n|---|" + "---|" * len(RATES)
