"""Words: a text cut into what a word-level method keeps or drops, and how the kept ones read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import regex

from ctxkit.compression.sources.cut import Fragment
from ctxkit.compression.text.pins import Pins, Span
from ctxkit.compression.text.segment import sentence_bounds

MARK = "…"
"""Stands where a pin was left out, and where two words would run into one."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CORE = r"[\p{L}\p{N}\p{M}_]"
_WORD = regex.compile(
    rf"(?=[{_UNSPACED}])\X"  # scripts without spaces: each cluster is a word
    rf"|(?:{_CORE}(?<![{_UNSPACED}]))(?:[^\s{_UNSPACED}]*{_CORE}(?<![{_UNSPACED}]))?"  # inner marks
    r"\p{M}*\u200d?"
    r"|\X"  # a punctuation mark, an emoji
)
_FACT = regex.compile(r"^(?:[^\n]{0,200}\p{N}|\W*\w+(?:[-_./\\@:]+\w+)+\W*$)")
_JOINS = regex.compile(rf"[\p{{L}}\p{{N}}_](?<![{_UNSPACED}])")


@dataclass(frozen=True)
class Words:
    """One text, cut. White space belongs to the word that follows it.

    bounds: char offsets, [words + 1]; word i with its white space is text[bounds[i]:bounds[i + 1]].
    starts: where the word proper begins, [words]. sentences: number of its sentence or line, rising, [words].
    pinned: whether it is a fact that only goes with its whole sentence, [words].
    """

    text: str
    bounds: Sequence[int]
    starts: Sequence[int]
    sentences: Sequence[int]
    pinned: Sequence[bool]

    @classmethod
    def of(cls, text: str, pins: Pins | None = None, question: str = "") -> Words:
        """Cut at white space and around punctuation; each pin is one word. Never inside a grapheme cluster."""
        spans = [] if pins is None else pins.spans(text, question)
        found = list(_with_pins(((match.start(), match.end()) for match in _found(text)), spans))
        starts = [start for start, _, _ in found]
        ends = [end for _, end, _ in found]
        bounds = [0, *ends[:-1], len(text)] if found else [0]
        sentences = sentence_bounds(text)
        numbers = [bisect_right(sentences, start) - 1 for start in starts]
        return cls(text, bounds, starts, numbers, [pinned for _, _, pinned in found])

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def proper(self) -> list[str]:
        """The words without white space."""
        ends = self.bounds[1:]
        return [self.text[start:end].rstrip() for start, end in zip(self.starts, ends, strict=True)]

    @cached_property
    def facts(self) -> list[bool]:
        """Pins that nobody can guess from the rest of the text: with a digit, or names with marks inside, [words]."""
        return [pinned and bool(_FACT.search(word)) for word, pinned in zip(self.proper, self.pinned, strict=True)]

    @cached_property
    def spaced(self) -> list[str]:
        """The words with the white space before them; joined they are the text."""
        return [self.text[start:end] for start, end in zip(self.bounds, self.bounds[1:], strict=False)]

    def fragments(
        self, kept: Iterable[int], first: int = 0, last: int | None = None, *, by_sentence: bool = False
    ) -> list[Fragment]:
        """The kept words in order: slices of the text, a line break where one was, a mark where a pin is missing.

        Between the words `first` and `last` (half-open), as if there were no others. Where some are missing, runs of
        blanks inside a line are one blank.
        by_sentence: marks stand where whole sentences are missing between two that are kept, and nowhere else. What is
        missing before and behind all that is kept costs nothing then.
        """
        kept = sorted(kept)
        if len(kept) == len(self):
            return [Fragment(self.text, 0)] if self.text else []
        marked = self._sentence_between if by_sentence else self._pin_between
        fragments: list[Fragment] = []
        at = first - 1  # the last word that was kept
        for word in kept:
            if word == at + 1:
                _slice(fragments, self.text, self._blank(word), self.bounds[word + 1])
            else:
                self._after_gap(fragments, at, word, marked(at, word))
            at = word
        if marked(at, len(self) if last is None else last):
            fragments.append(Fragment(f" {MARK}" if fragments else MARK, None))
        return fragments

    def _blank(self, word: int) -> int:
        """Where the white space before a word begins, or its last blank in a line of a table."""
        start, end = self.bounds[word], self.starts[word]
        return start if end - start < 2 or self.text.count("\n", start, end) else end - 1

    def _pin_between(self, before: int, word: int) -> bool:
        return any(self.pinned[before + 1 : word])

    def _sentence_between(self, before: int, word: int) -> bool:
        if before < 0 or word == len(self):
            return False
        ends = (self.sentences[before], self.sentences[word])
        return any(sentence not in ends for sentence in self.sentences[before + 1 : word])

    def _after_gap(self, fragments: list[Fragment], before: int, word: int, marked: bool) -> None:
        """Adds a word in front of which some are missing."""
        space = self._space(before, word)
        if fragments and (marked or space is None and self._would_join(before, word)):
            fragments.append(Fragment(f" {MARK}" if marked and space is not None else MARK, None))
        elif marked:
            fragments.append(Fragment(f"{MARK} ", None))
        if fragments and space is not None and fragments[-1].text != f"{MARK} ":
            _slice(fragments, self.text, *space)
        _slice(fragments, self.text, self.starts[word], self.bounds[word + 1])

    def _space(self, before: int, word: int) -> Span | None:
        """White space for between two kept words: the largest break there was, else the last blank."""
        spaces = [
            (self.bounds[i], self.starts[i]) for i in range(before + 1, word + 1) if self.bounds[i] < self.starts[i]
        ]
        if not spaces:
            return None
        breaks = [self.text.count("\n", *space) for space in spaces]
        if any(breaks):
            return spaces[breaks.index(max(breaks))]
        _, end = spaces[-1]
        if end < self.starts[word] and not self._would_join(before, word):
            return None  # a mark that stood right behind a word
        return end - 1, end

    def _would_join(self, before: int, word: int) -> bool:
        return bool(_JOINS.match(self.text[self.bounds[before + 1] - 1]) and _JOINS.match(self.text[self.starts[word]]))


def has_words(text: str, count: int) -> bool:
    """Whether a text has at least so many words, pins not joined; reads no further than it must."""
    return count < 1 or next(islice(_found(text), count - 1, None), None) is not None


def _found(text: str) -> Iterator[regex.Match[str]]:
    return (match for match in _WORD.finditer(text) if not match.group().isspace())


def _with_pins(words: Iterable[Span], pins: Sequence[Span]) -> Iterator[tuple[int, int, bool]]:
    """(start, end, pinned) of the words, those that touch one pin joined."""
    waiting = iter(pins)
    pin = next(waiting, None)
    joined: Span | None = None
    for start, end in words:
        while pin is not None and pin[1] <= start:
            if joined is not None:
                yield (*joined, True)
                joined = None
            pin = next(waiting, None)
        if pin is not None and start < pin[1] and end > pin[0]:
            joined = (start, end) if joined is None else (joined[0], end)
        else:
            yield start, end, False
    if joined is not None:
        yield (*joined, True)


def _slice(fragments: list[Fragment], text: str, start: int, end: int) -> None:
    """Adds text[start:end], to the last fragment where it ends there."""
    if fragments and fragments[-1].start is not None and fragments[-1].end == start:
        start = fragments.pop().start or 0
    fragments.append(Fragment(text[start:end], start))
