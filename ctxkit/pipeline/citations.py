"""Citations from evidence: which passage supports a sentence, decided by looking, not by asking the model.

A sentence is supported by the passage that holds most of what it says: its content words, weighted by how rare they
are among the passages, and every number in it. Small models cannot be trusted to cite; their words can be checked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import regex

from ctxkit.context import Part

_WORD = regex.compile(r"[\p{L}\p{N}]+(?:[.,'’_-][\p{L}\p{N}]+)*")
_SENTENCE_END = regex.compile(r"(?<=[.!?。！？][\"'”’)\]]*)(?=\s)|(?<=[。！？])|(?=\n)")
_FUNCTION_WORDS = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its may more most no not of on or our she should so such than that the their them then there these they this to "
    "was we were what when where which who why will with would you your yes also using use used".split()
)


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
        self._stems = {number: Counter(stems(f"{part.title}\n{part.content}")) for number, part in passages.items()}
        holders = Counter(stem for counts in self._stems.values() for stem in counts)
        self._weights = {stem: math.log(1 + len(passages) / count) for stem, count in holders.items()}
        # A word that no passage holds speaks against all of them, as much as the rarest speaks for one.
        self._unseen = math.log(1 + 2 * max(len(passages), 1))

    def cite(self, sentence: str) -> tuple[Citation, ...]:
        """The best supporting passage, and others as good as it; none where nothing supports the sentence."""
        said = set(stems(sentence))
        weight = sum(self._weight(stem) for stem in said)
        if not weight:
            return ()
        support = {number: self._held(said, counts) / weight for number, counts in self._stems.items()}
        best = max(support.values(), default=0.0)
        if best < self.threshold:
            return ()
        return tuple(Citation(number, share) for number, share in sorted(support.items()) if share >= 0.999 * best)[:2]

    def _weight(self, stem: str) -> float:
        return self._weights.get(stem, self._unseen)

    def _held(self, said: set[str], counts: Mapping[str, int]) -> float:
        return sum(self._weight(stem) for stem in said if stem in counts)


def stems(text: str) -> list[str]:
    """Content words, lower-cased, without the commonest English endings; numbers and identifiers as they are."""
    return [_stem(word) for word in map(str.lower, _WORD.findall(text)) if word not in _FUNCTION_WORDS]


def _stem(word: str) -> str:
    if not word.isascii() or not word.isalpha():
        return word
    for ending in ("ings", "ing", "ied", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
    return word


def split_sentences(text: str) -> list[str]:
    """Finished sentences and, last, the one still being written; joined they are the text."""
    ends = [match.start() for match in _SENTENCE_END.finditer(text) if 0 < match.start() < len(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
