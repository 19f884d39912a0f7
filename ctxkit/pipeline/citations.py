"""Citations from evidence: which passage supports a sentence, decided by looking, not by asking the model.

A sentence is supported by the passage that holds most of what it says (its content words, weighted by how rare they
are among the passages) and every number in it. Small models cannot be trusted to cite; their words can be checked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import regex

from ctxkit.context import Part

_WORD = regex.compile(r"[\p{L}\p{N}]+(?:[.,'’_-][\p{L}\p{N}]+)*")
_NUMBER = regex.compile(r"\p{N}+(?:[.,]\p{N}+)*")
_THOUSANDS = regex.compile(r"\p{N}{1,3}(?:,\p{N}{3})+(?:\.\p{N}+)?")
_MARK = regex.compile(r"\[\p{N}{1,3}\]")  # a citation that the model made up: it claims nothing about the world
_LIST_MARK = regex.compile(r"(?:\n\s*)?\p{N}{1,2}[.)](?=[^\S\n])")
# A sign and the quotes and brackets that close after it; or whatever stands before a line end. Nothing here looks back,
# and each end shows as soon as one more character is known, so that a text may come in any pieces.
_CLOSING = r"[\"'”’»)\]」』）】]"
_SENTENCE_END = regex.compile(
    rf"[.!?]{_CLOSING}*+(?=\s)|[。！？]{_CLOSING}*+(?=[^\"'”’»)\]」』）】])|.(?=\n)", regex.DOTALL
)
_GRAMMAR = """
    a an and are as at be been but by can could did do does for from had has have he her his how i if in into is
    it its may more most no not of on or our she should so such than that the their them then there these they
    this to was we were what when where which who why will with would you your yes also using use used
"""
# What an answer says of itself: "The answer is ...", "According to the passages, ..."
_FRAMING = "according answer answers context mentioned passage passages question says state stated states text"
_FUNCTION_WORDS = frozenset(f"{_GRAMMAR} {_FRAMING}".split())


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that supports a sentence. `support` is the share of the sentence found in it, in [0, 1]."""

    number: int
    support: float


class Citer:
    """Finds the passages that support a sentence.

    passages: citation number -> passage, as in a plan.
    threshold: least share of a sentence's weight that a passage must hold to be cited.
    """

    def __init__(self, passages: Mapping[int, Part], threshold: float = 0.6) -> None:
        self.threshold = threshold
        texts = {number: f"{part.title}\n{part.content}" for number, part in passages.items()}
        self._numbers = {number: numbers(text) for number, text in texts.items()}
        self._stems = {number: Counter(stems(text)) for number, text in texts.items()}
        holders = Counter(stem for counts in self._stems.values() for stem in counts)
        self._weights = {stem: math.log(1 + len(passages) / count) for stem, count in holders.items()}
        # A word that no passage holds speaks against all of them, as much as the rarest speaks for one.
        self._unseen = math.log(1 + 2 * max(len(passages), 1))

    def cite(self, sentence: str) -> tuple[Citation, ...]:
        """The best supporting passage, and others as good as it; none where nothing supports the sentence."""
        claimed = _claim(sentence)
        said, figures = set(stems(claimed)), numbers(claimed)
        weight = sum(self._weight(stem) for stem in said)
        if not weight:
            return ()
        able = {number: counts for number, counts in self._stems.items() if figures <= self._numbers[number]}
        support = {number: self._held(said, counts) / weight for number, counts in able.items()}
        best = max(support.values(), default=0.0)
        if best < self.threshold:
            return ()
        return tuple(Citation(number, share) for number, share in sorted(support.items()) if share >= 0.999 * best)[:2]

    def _weight(self, stem: str) -> float:
        return self._weights.get(stem, self._unseen)

    def _held(self, said: set[str], counts: Mapping[str, int]) -> float:
        return sum(self._weight(stem) for stem in said if stem in counts)


def stems(text: str) -> list[str]:
    """Content words, case-folded, without the commonest English endings; identifiers as they are."""
    return [_stem(word) for word in map(str.casefold, _WORD.findall(text)) if word not in _FUNCTION_WORDS]


def numbers(text: str) -> set[str]:
    """The numbers in a text, also those inside of names, as digits alone: no thousands separators, no leading zeros.

    >>> sorted(numbers("1,024 tokens on 2024-03-07, v2"))
    ['1024', '2', '2024', '3', '7']
    """
    found = _NUMBER.findall(text)
    return {_plain(one).lstrip("0") or "0" for one in found}


def _plain(number: str) -> str:
    return number.replace(",", "") if _THOUSANDS.fullmatch(number) else number


def _claim(sentence: str) -> str:
    """The sentence without what only orders it: the number of a list item, citations that the model wrote."""
    mark = _LIST_MARK.match(sentence)
    return _MARK.sub(" ", sentence[mark.end() :] if mark else sentence)


def _stem(word: str) -> str:
    if not word.isascii() or not word.isalpha():
        return _plain(word)
    for ending in ("ings", "ing", "ied", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
    return word


def split_sentences(text: str) -> list[str]:
    """Finished sentences and, last, the one still being written; joined they are the text.

    The number of a list item ("1. Open it.") belongs to its sentence. A finished sentence stays as it is whatever
    comes next, and what follows is cut the same with or without it.
    """
    sentences: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        mark = _LIST_MARK.match(text, start)
        if mark is None or end.end() > mark.end():
            sentences.append(text[start : end.end()])
            start = end.end()
    return [*sentences, text[start:]]
