"""Asked: what a question wants to know, and which words of a sentence may be the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import regex

from ctxkit.compression.text.score import STOP_WORDS, terms
from ctxkit.compression.text.words import Words

TYPED = 1.0
"""What a word of the kind that is asked for is worth more."""

NEAR = 1.5
"""What a word that the question mentions is worth more; the words around it share in it."""

ASKED = -0.5
"""What a word that the question mentions is worth less again: it is known, what stands beside it is not."""

REACH = 8.0
"""Words after which what is near is worth 1/e."""

_KERNEL = (0.1, 0.2, 0.4, 0.2, 0.1)
_MOST = 1.0 + TYPED + NEAR

_WHICH = r"(?:what|which)(?:\s(?:is|was|are|were)\sthe)?\s(?:\w+\s)?"
_KINDS = {
    "number": r"\bhow\s(?:many|much|long|old|far|often|large|big|small|tall|high|deep|fast|wide|heavy|few)\b"
    rf"|\b{_WHICH}(?:percent(?:age)?|number|amount|age|rate|cost|price|size|population|score|total|average|temperature"
    r"|speed|length|height|weight|distance)\b",
    "date": rf"\bwhen\b|\b{_WHICH}(?:year|date|day|month|century|decade|time)\b",
    "name": r"\b(?:who|whom|whose|where|which|name)\b"
    r"|\bwhat\s(?:city|country|state|place|company|person|team|group|language)\b",
}
_QUESTIONS = {kind: regex.compile(pattern, regex.IGNORECASE) for kind, pattern in _KINDS.items()}
_NUMERALS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion "
    "half third quarter dozen several once twice first second".split()
)
_DATE = regex.compile(
    r"\b(?:1\d{3}|20\d\d)s?\b|\b(?:january|february|march|april|may|june|july|august|september|october|november"
    r"|december|century|decade|spring|summer|autumn|winter|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
    regex.IGNORECASE,
)


@dataclass(frozen=True)
class Asked:
    """A question, read."""

    question: str

    @cached_property
    def terms(self) -> frozenset[str]:
        return frozenset(terms(self.question))

    @cached_property
    def kind(self) -> str | None:
        """What the answer should be: "number", "date", "name", or None where nobody knows. English questions only.

        >>> [Asked(question).kind for question in ("How many sacks?", "In what year?", "Who won?", "Why?")]
        ['number', 'date', 'name', None]
        """
        return next((kind for kind, pattern in _QUESTIONS.items() if pattern.search(self.question)), None)

    def worth(self, words: Words, own: Sequence[float]) -> list[float]:
        """How likely each word is a part of the answer, given that its sentence has it, in [0, 1], [words].

        own: what a word is worth without the question, in [0, 1], [words]; what the question mentions does without.

        Words of the kind that is asked for are lifted, so are words near those that the question mentions. Neighbours
        share: an answer is a run of words, and runs read better than words from everywhere.
        """
        asked = [not self.terms.isdisjoint(terms(word)) for word in words.proper]
        worth = [ASKED if known else value for known, value in zip(asked, own, strict=True)]
        found: list[float] = []
        for start, end in _sentences(words):
            near = _near(asked[start:end])
            typed = self._typed(words.proper[start:end], asked[start:end])
            raw = [w + NEAR * n + TYPED * t for w, n, t in zip(worth[start:end], near, typed, strict=True)]
            found += [min(max(value / _MOST, 0.0), 1.0) for value in _smooth(raw)]
        return found

    def _typed(self, sentence: Sequence[str], asked: Sequence[bool]) -> list[bool]:
        """Which words are of the kind that is asked for, and not in the question."""
        return [
            not known and self._is_typed(word, i == 0)
            for i, (word, known) in enumerate(zip(sentence, asked, strict=True))
        ]

    def _is_typed(self, word: str, first: bool) -> bool:
        if self.kind == "number":
            return any(char.isnumeric() for char in word) or word.casefold() in _NUMERALS
        if self.kind == "date":
            return _DATE.search(word) is not None
        return self.kind == "name" and not first and word[:1].isupper() and word.casefold() not in STOP_WORDS


def _sentences(words: Words) -> Iterator[tuple[int, int]]:
    """Half-open ranges of the words of each sentence."""
    start = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or words.sentences[i] != words.sentences[start]:
            yield start, i
            start = i


def _near(asked: Sequence[bool]) -> list[float]:
    """1 for what the question mentions, less with the distance from it."""
    decay = math.exp(-1 / REACH)
    ahead = _echo(asked, decay)
    behind = _echo(asked[::-1], decay)[::-1]
    return [max(pair) for pair in zip(ahead, behind, strict=True)]


def _echo(asked: Sequence[bool], decay: float) -> list[float]:
    values, value = [], 0.0
    for known in asked:
        value = 1.0 if known else value * decay
        values.append(value)
    return values


def _smooth(values: Sequence[float]) -> list[float]:
    """Each value with its neighbours' shares; the ends stand for what is beyond them."""
    half = len(_KERNEL) // 2
    wide = [*[values[0]] * half, *values, *[values[-1]] * half]
    return [sum(k * wide[i + j] for j, k in enumerate(_KERNEL)) for i in range(len(values))]
