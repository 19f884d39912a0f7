"""Passage: a text cut into sentences, with what a question is compared with. It can be kept for the next one."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ctxkit.compression.by_question.antecedents import leans
from ctxkit.compression.sources.pieces import slices
from ctxkit.compression.text.score import terms
from ctxkit.compression.text.segment import Bounds, sentence_bounds

LONG_TEXT = 24
"""A text of more sentences is no one passage: each sentence has its own neighbourhood."""

REACH = 12
"""Sentences of a long text to each side that are a sentence's neighbourhood."""

Range = tuple[int, int]
"""Half-open, in sentences."""


@dataclass(frozen=True)
class Passage:
    """text: as given. bounds: char offsets of its sentences, as `Words.sentences` numbers them, [sentences + 1]."""

    text: str
    bounds: Bounds

    @classmethod
    def of(cls, text: str) -> Passage:
        return cls(text, sentence_bounds(text))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def sentences(self) -> list[str]:
        return slices(self.text, self.bounds)

    @cached_property
    def tallies(self) -> list[Tally[str]]:
        """How often each term occurs in each sentence."""
        return [Tally(terms(sentence)) for sentence in self.sentences]

    @cached_property
    def leaning(self) -> list[bool]:
        """Which sentences need the one before them to be understood."""
        return [i > 0 and leans(sentence) for i, sentence in enumerate(self.sentences)]


def neighbourhoods(passages: Sequence[Passage]) -> list[Range]:
    """What each sentence is understood with: its whole text where that is short, else the sentences around it.

    Sentences are numbered through all passages. One range for each, [sentences].
    """
    ranges: list[Range] = []
    for passage in passages:
        start, count = len(ranges), len(passage)
        if count <= LONG_TEXT:
            ranges += [(start, start + count)] * count
        else:
            ranges += [(start + max(i - REACH, 0), start + min(i + REACH + 1, count)) for i in range(count)]
    return ranges
