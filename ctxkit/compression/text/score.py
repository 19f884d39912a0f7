"""Scorer: how much a segment matters for the question, or by itself."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence

import regex

_WORD = regex.compile(r"[\w\p{M}]+")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_FACT = regex.compile(r"\d[\d.,:/-]*|\b[^\W_]+(?:[_/.:-][^\W_]+)+|\b\p{Lu}{2,}\b|\b\p{Ll}+\p{Lu}\w*")
STOP_WORDS = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its me my no not of on or our she should so than that the their them then there they this to us was we were what "
    "when where which who why will with would you your".split()
)
_K1, _B = 1.2, 0.75
_NEIGHBOUR = 0.35


def terms(text: str) -> list[str]:
    """Folded words without English stop words and plural s; pairs of characters in scripts without spaces.

    >>> terms("The sockets of Zürich")
    ['socket', 'zürich']
    """
    return [term for word in _WORD.findall(text) for term in _terms_of(word.casefold()) if term not in STOP_WORDS]


def _terms_of(word: str) -> Iterator[str]:
    if len(word) > 2 and _UNSPACED.search(word):
        yield from (word[i : i + 2] for i in range(len(word) - 1))
    elif len(word) > 3 and word.isascii() and word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
    else:
        yield word


def relevance(segments: Sequence[str], question: str) -> list[float]:
    """BM25 of each segment against the question, divided by the best; all 0 where no word of it occurs."""
    wanted = set(terms(question))
    if not wanted or not segments:
        return [0.0] * len(segments)
    words = [terms(segment) for segment in segments]
    return _normalised(
        bm25([Tally(word for word in found if word in wanted) for found in words], list(map(len, words)))
    )


def bm25(hits: Sequence[Mapping[str, int]], lengths: Sequence[int]) -> list[float]:
    """BM25 of each segment: how often each term of the question occurs in it, and how many terms it has.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), k1 = 1.2, b = 0.75.
    """
    mean = sum(lengths) / len(lengths) or 1.0 if lengths else 1.0
    document_frequency = Tally(word for hit in hits for word in hit)
    idf = {word: math.log(1 + (len(hits) - n + 0.5) / (n + 0.5)) for word, n in document_frequency.items()}
    return [
        sum(idf[word] * n * (_K1 + 1) / (n + _K1 * (1 - _B + _B * length / mean)) for word, n in hit.items())
        for hit, length in zip(hits, lengths, strict=True)
    ]


def importance(segments: Sequence[str], question: str) -> list[float]:
    """Value per token of each segment, in (0, 1]: the question first, then place, facts and common words."""
    asked = relevance(segments, question)
    places = [place(i, len(segments)) for i in range(len(segments))]
    known = [min(1.0, len(_FACT.findall(segment)) / 4) for segment in segments]
    if any(asked):
        near = _spread(asked)
        return [0.05 + 0.7 * a + 0.15 * p + 0.1 * f for a, p, f in zip(near, places, known, strict=True)]
    central = _centrality(segments)
    return [0.1 + 0.4 * c + 0.3 * p + 0.2 * f for c, p, f in zip(central, places, known, strict=True)]


def place(index: int, count: int) -> float:
    """1 for the first of `count` segments, less with the distance from both ends."""
    return max(1 / (1 + index), 0.6 / (count - index))


def ends_first(index: int, count: int) -> float:
    """A score in (0, 1] that ranks first, last, second, second last, ..."""
    rank = min(2 * index, 2 * (count - 1 - index) + 1)
    return float((1 + rank) ** -0.5)


def _centrality(segments: Sequence[str]) -> list[float]:
    """Mean frequency of a segment's words in the whole text (Nenkova and Vanderwende, SumBasic, 2005)."""
    words = [terms(segment) for segment in segments]
    frequency = Tally(word for found in words for word in found)
    return _normalised([sum(math.log(frequency[word]) for word in found) / (len(found) or 1) for found in words])


def _spread(scores: Sequence[float]) -> list[float]:
    """Neighbours of what matches matter too."""
    before, after = [0.0, *scores[:-1]], [*scores[1:], 0.0]
    return [max(own, _NEIGHBOUR * b, _NEIGHBOUR * a) for own, b, a in zip(scores, before, after, strict=True)]


def _normalised(scores: list[float]) -> list[float]:
    best = max(scores, default=0.0)
    return [score / best for score in scores] if best > 0 else scores
