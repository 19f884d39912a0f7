"""JsonString: a long string of a JSON text, cut into words; what is kept of it are slices of its literal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ctxkit.compression.sources.cut import Fragment
from ctxkit.compression.sources.word_source import ranked_words
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.segment import divided
from ctxkit.compression.text.words import MARK, Words

SHORT_CHARS = 60
"""Strings up to this length stay as they are."""

_LEAST_WORDS = 8
_LONGEST_NAME_CHARS = 512  # a string of so few words up to this length is an id, a path or a URL
_CHUNK_CHARS = 60
_CHAR = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|[^\\]", re.DOTALL)


@dataclass(frozen=True)
class JsonString:
    """A string value that may lose words.

    start: char offset of its literal's opening quote in the JSON text. literal: with its quotes.
    words: of the value. is_blob: it has no words; its pieces only go from the end.
    """

    start: int
    literal: str
    words: Words
    is_blob: bool

    @classmethod
    def of(cls, text: str, start: int, end: int, pins: Pins | None, question: str) -> JsonString | None:
        """None for what is short, and for a name: an id, a path, a URL."""
        if end - start - 2 <= SHORT_CHARS:
            return None
        literal = text[start:end]
        value: str = json.loads(literal)
        if len(value) <= SHORT_CHARS:
            return None
        words = Words.of(value, pins, question)
        if len(words) >= _LEAST_WORDS:
            return cls(start, literal, words, False)
        if len(value) <= _LONGEST_NAME_CHARS:
            return None
        bounds, _ = divided(value, [0, len(value)], longest=_CHUNK_CHARS)
        count = len(bounds) - 1
        chunks = Words(value, bounds, bounds[:-1], [0] * count, [False] * count)
        return cls(start, literal, chunks, True)

    def ranked(self, scores: Sequence[float]) -> tuple[list[int], list[float]]:
        """Its words, best first, and their falling scores; a blob from its head."""
        count = len(self.words)
        if self.is_blob:
            return list(range(count)), [0.0] * count
        return ranked_words(self.words, scores, self.word_chars)

    @property
    def word_chars(self) -> list[int]:
        bounds = self.words.bounds
        return [end - start for start, end in zip(bounds, bounds[1:], strict=False)]

    def fragments(self, kept: Iterable[int]) -> list[Fragment]:
        """The literal of the value with these words only."""
        places = list(kept)
        value = self.words.fragments(places)
        missing = len(self.words) - len(places)
        if self.is_blob and missing or not places:
            chars = sum(self.word_chars[len(places) :]) if self.is_blob else len(self.words.text)
            value = [*value[: len(places)], Fragment(f"{MARK} [{chars:,} chars omitted]", None)]
        offsets = self._offsets()
        inner = [
            fragment
            if fragment.start is None
            else self._slice(offsets[fragment.start], offsets[fragment.start + len(fragment.text)])
            for fragment in value
        ]
        return [self._slice(0, 1), *inner, self._slice(len(self.literal) - 1, len(self.literal))]

    def _slice(self, start: int, end: int) -> Fragment:
        return Fragment(self.literal[start:end], self.start + start)

    def _offsets(self) -> Sequence[int]:
        """Where each character of the value begins in the literal, and where the last one ends."""
        if "\\" not in self.literal:
            return range(1, len(self.literal))
        lengths = (len(match.group()) for match in _CHAR.finditer(self.literal, 1, len(self.literal) - 1))
        return list(accumulate(lengths, initial=1))
