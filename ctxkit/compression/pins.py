"""Pins: the facts of a text that are kept whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import regex

Span = tuple[int, int]
"""Half-open, in characters."""

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?)"
)
_UNIT = (
    r"(?:%|‰|°[CF]?|[kKMGT]i?B(?:/s)?|[kMG]?bit(?:/s)?|[kMGm]?Hz|[nµumck]?m[²³]?|km/h|mph|[nµum]?s|sec|min|hours?|days?"
    r"|weeks?|months?|years?|[kmµ]?g|lbs?|oz|[mk]?W|kWh|[mk]?V|[mk]?A|[KM]?Pa|bar|l|ml|ft|in|mi|miles?|tokens?|percent"
    r"|thousand|million|billion|trillion|USD|EUR|GBP|JPY|CHF|dollars?|euros?|pounds?|[ap]\.?m\b\.?|BC|AD|BCE|CE)"
)
_KINDS = {
    "url": r"\b[a-z][a-z0-9+.-]*://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]}]",
    "email": r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "uuid": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "date": rf"\b\d{{4}}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:,?\s\d{{4}})?\b|\b{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?"
    rf"(?:,\s\d{{4}})?\b|\b{_MONTH}\s\d{{4}}\b|\b\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}\b",
    "path": r"(?<![\w/.])(?:~|\.{1,2})?/[\w.@+-]+(?:/[\w.@+-]+)*/?|\b[A-Za-z]:\\[\w.\\ -]*\w"
    r"|\b[\w.@+-]+(?:/[\w.@+-]+)+\.\w+\b|\b[\w.@+-]+(?:/[\w.@+-]+){2,}",
    "flag": r"(?<![\w-])--?[A-Za-z][\w-]*(?:=[^\s,;]+)?",
    "hash": r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,}\b|\b0[xX][0-9a-fA-F]+\b",
    "identifier": r"\b\p{L}[\p{L}\p{N}]*(?:_[\p{L}\p{N}]+)+\b|\b_+[\p{L}\p{N}]\w*"
    r"|\b\p{Lu}[\p{Lu}\p{N}]*(?:[-_]\w*\p{N}\w*)+\b"
    r"|\b(?=\w*\p{N})(?=\w*\p{L})\w+(?:[-.:]\w+)*|\b[\p{L}_]\w*(?:\.[\p{L}_]\w*){1,}(?:\(\))?(?<=[\w)]{3})"
    r"|\b\p{Ll}+\p{Lu}\w*|\b\p{Lu}\p{Ll}+(?:\p{Lu}\p{Ll}+)+\b|(?<![\w&])[#@]\w+",
    "number": rf"(?<![\w.,])[-+−±~≈]?[$€£¥₹]?\s?\p{{N}}+(?:[.,:/×^’'-]\p{{N}}+)*(?:[eE][-+]?\d+)?"
    rf"(?:\s?{_UNIT}(?![\p{{L}}\p{{N}}]))?"
    r"(?:\s(?:per\s\w+))?",
    "code": r"`[^`\n]{1,160}`",
    "quoted": r"\"[^\"\n]{1,80}\"|“[^”\n]{1,80}”|«[^»\n]{1,80}»",
    "fence": r"^[ \t]*(?P<fence>```|~~~)[^\n]*\n(?s:.*?)^[ \t]*(?P=fence)[^\n]*$",
}
KINDS = tuple(_KINDS)
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
        unknown = [kind for kind in self.kinds if kind not in _KINDS]
        if unknown:
            raise ValueError(f"`kinds` must be of {', '.join(KINDS)}; got {unknown[0]!r}")

    def spans(self, text: str, question: str = "") -> list[Span]:
        """Half-open char spans in order; those that overlap are one. They begin and end with no white space."""
        found = [_stripped(text, *match.span()) for kind in self.kinds for match in _PATTERNS[kind].finditer(text)]
        words = [*self.words, *(mentioned(question) if self.names else ())]
        if words:
            pattern = regex.compile(r"(?<!\w)(?:" + "|".join(map(regex.escape, words)) + r")(?!\w)")
            found += [match.span() for match in pattern.finditer(text)]
        return _merged(found)


_PATTERNS = {kind: regex.compile(pattern, regex.MULTILINE) for kind, pattern in _KINDS.items()}


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
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
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
