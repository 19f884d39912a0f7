"""Pins: the facts of a text that are kept whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import regex

from ctxkit.compression.text.pin_kinds import PATTERNS, RUNS, runs

Span = tuple[int, int]
"""Half-open, in characters."""

KINDS = (*PATTERNS, *RUNS)
"""What can be pinned, by name."""

_NAME = regex.compile(r"\b(?:\p{Lu}[\w'’.-]*\w|\w*\p{N}\w*)\b")
_ASKING = frozenset(
    "who what when where which why how whose whom is are was were do does did can the a an in on".split()
)


@dataclass(frozen=True)
class Pins:
    """Finds what must not be mangled: a pin stays whole, or goes with the sentence or line that it stands in.

    kinds: names of `KINDS`. names: also the names and numbers that the question mentions.
    words: strings that are pinned wherever they stand as words.

    >>> text = "Invoice INV-20931 of 3 May 2024 is $1,234.56, see https://example.org/a?b=1."
    >>> [text[start:end] for start, end in Pins().spans(text)]
    ['INV-20931', '3 May 2024', '$1,234.56', 'https://example.org/a?b=1']
    """

    kinds: tuple[str, ...] = KINDS
    names: bool = True
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"`kinds` must be of {', '.join(KINDS)}; got {unknown[0]!r}")

    def spans(self, text: str, question: str = "") -> list[Span]:
        """Half-open char spans in order; those that overlap are one. They begin and end with no white space."""
        patterns = [_COMPILED[kind] for kind in self.kinds if kind in _COMPILED]
        found = [_stripped(text, *match.span()) for pattern in patterns for match in pattern.finditer(text)]
        tests = [RUNS[kind] for kind in self.kinds if kind in RUNS]
        if tests:
            found += [(at, at + len(run)) for at, run in runs(text) if any(test(run) for test in tests)]
        words = [*self.words, *(mentioned(question) if self.names else ())]
        if words:
            pattern = regex.compile(r"(?<!\w)(?:" + "|".join(map(regex.escape, words)) + r")(?!\w)")
            found += [match.span() for match in pattern.finditer(text)]
        return _merged(found)


_COMPILED = {kind: regex.compile(pattern, regex.MULTILINE) for kind, pattern in PATTERNS.items()}


def mentioned(question: str) -> list[str]:
    """Names and numbers in a question, longest first.

    >>> mentioned("When did Marie Curie leave Warsaw in 1891?")
    ['Warsaw', 'Marie', 'Curie', '1891']
    """
    words = {match.group() for match in _NAME.finditer(question)}
    return sorted(
        (word for word in words if word.casefold() not in _ASKING), key=lambda word: (-len(word), question.find(word))
    )


def _stripped(text: str, start: int, end: int) -> Span:
    """Without white space around it, and without the punctuation of the sentence behind it."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and (text[end - 1].isspace() or text[end - 1] in ".,;:!?"):
        end -= 1
    if text[end - 1 : end] == ")" and "(" not in text[start:end]:
        end -= 1
    return start, end


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
