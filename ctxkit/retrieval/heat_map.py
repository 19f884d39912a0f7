"""HeatMap: the words of a hit that answered the query, how warmly, and which word of the query each answered."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxkit.retrieval.terms import STOP_WORDS, terms

if TYPE_CHECKING:
    from ctxkit.protocols import Match
    from ctxkit.retrieval.hit import Hit

LEVELS = (0.25, 0.5, 0.65, 0.8)
"""Similarities from which on a word is one level warmer. Below the first it is cold: the best of no good answers."""

_WORD = re.compile(r"\w+(?:['’]\w+)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """A word of the query that a word of the passage answered. similarity: at most 1, the mean of its word pieces."""

    asked: str
    similarity: float

    @property
    def small(self) -> bool:
        """Whether it is one of the words that stand in every text."""
        return self.asked.lower() in STOP_WORDS


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of the passage. answers: none for what answered nothing, else the best first, and small words last."""

    text: str
    answers: tuple[Answer, ...] = ()

    @property
    def small(self) -> bool:
        """Whether it answered nothing but small words."""
        return all(answer.small for answer in self.answers)

    @property
    def level(self) -> int:
        """How warm it is: 0 for cold, else 1 to len(LEVELS); at most 1 for answers to small words."""
        if not self.answers:
            return 0
        level = sum(self.answers[0].similarity >= least for least in LEVELS)
        return min(level, 1) if self.small else level


@dataclass(frozen=True, slots=True)
class Link:
    """A word of the query and the words of the passage that answered it, in text order."""

    asked: str
    answered: tuple[str, ...]
    similarity: float

    @property
    def small(self) -> bool:
        """Whether it is one of the words that stand in every text."""
        return self.asked.lower() in STOP_WORDS


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A hit's passage as a heat map. It shows itself in a notebook and, by `str`, as text without colours.

    pieces: joined they are the passage. links: which word answered which, in the query's order.
    by_tokens: whether similarities are those of token vectors. Without them, a word is warm if it is in the query.
    rest: the share of the token vectors' score that no word of the passage earned: headings, and a query's padding.
    """

    hit: Hit
    pieces: tuple[Piece, ...]
    links: tuple[Link, ...]
    by_tokens: bool
    by_headings: tuple[str, ...] = ()

    @classmethod
    def of(cls, hit: Hit, query: str | None = None) -> HeatMap:
        """The heat map of a hit. query: what was searched for. Without it, a hit of an index that has no token vectors
        shows the sentences of its evidence in place of words."""
        if hit.matches:
            pieces, links = _by_tokens(hit.chunk.text, hit.matches)
            return cls(hit, pieces, links, by_tokens=True, by_headings=_by_headings(hit, query or ""))
        if query is not None:
            pieces, links = _by_words(hit.chunk.text, query)
        else:
            pieces, links = _by_sentences(hit), ()
        return cls(hit, pieces, links, by_tokens=False)

    @property
    def legend(self) -> str:
        """`budget -> budgets .83, window -> context .61, cap -> in a heading`; small words if there are no others."""
        telling = [link for link in self.links if not link.small]
        telling = telling if telling or self.by_headings else list(self.links)
        said = [
            f"{link.asked} -> {' '.join(link.answered)}" + (f" {decimals(link.similarity)}" if self.by_tokens else "")
            for link in telling
        ]
        return ", ".join([*said, *(f"{word} -> in a heading" for word in self.by_headings)])

    def to_dict(self) -> dict[str, Any]:
        """Which word answered which, as plain values. Similarities are None where there are no token vectors."""
        links = [
            {
                "asked": link.asked,
                "answered": list(link.answered),
                "similarity": link.similarity if self.by_tokens else None,
            }
            for link in self.links
        ]
        return {"links": links, "by_headings": list(self.by_headings)}

    def __str__(self) -> str:
        from ctxkit.retrieval.heat_map_text import plain

        return plain(self)

    def _repr_html_(self) -> str:
        from ctxkit.retrieval.heat_map_html import fragment

        return fragment(self)


def decimals(similarity: float) -> str:
    """`.83`, as similarities are shown everywhere."""
    return f"{similarity:.2f}".replace("0.", ".", 1)


@dataclass(frozen=True, slots=True)
class _Answered:
    """One word of the query and one of the passage, [start, end) in characters."""

    start: int
    end: int
    number: int
    asked: str
    similarity: float


def _by_tokens(text: str, matches: Sequence[Match]) -> tuple[tuple[Piece, ...], tuple[Link, ...]]:
    starts = _character_starts(text)
    found: list[_Answered] = []
    for number, pieces in enumerate(_query_words(matches)):
        asked = "".join(match.asked for match in pieces)
        spans = [_whole_word(text, *np.searchsorted(starts, (match.start, match.end)).tolist()) for match in pieces]
        for start, end in dict.fromkeys(spans):
            own = [match.similarity for match, span in zip(pieces, spans, strict=True) if span == (start, end)]
            found.append(_Answered(start, end, number, asked, sum(own) / len(own)))
    return _pieces(text, found), _links(text, found)


def _by_words(text: str, query: str) -> tuple[tuple[Piece, ...], tuple[Link, ...]]:
    asked: dict[str, tuple[int, str]] = {}
    for number, word in enumerate(_WORD.findall(query)):
        for term in terms(word):
            asked.setdefault(term, (number, word))
    found = []
    for match in _WORD.finditer(text):
        hits = {asked[term] for term in terms(match.group()) if term in asked}
        found += [_Answered(match.start(), match.end(), number, word, 1.0) for number, word in sorted(hits)]
    return _pieces(text, found), _links(text, found)


def _by_sentences(hit: Hit) -> tuple[Piece, ...]:
    text = hit.chunk.text
    starts = _character_starts(text)
    spans = [(np.searchsorted(starts, (span.start, span.end)).tolist(), span.score) for span in hit.evidence]
    return _pieces(text, [_Answered(start, end, 0, "evidence", score) for (start, end), score in spans])


def _pieces(text: str, found: Iterable[_Answered]) -> tuple[Piece, ...]:
    """The whole text, cut where warm words begin and end. Overlapping ones are one."""
    pieces, at = [], 0
    for start, end, own in _joined(sorted(found, key=lambda one: (one.start, one.end))):
        if start > at:
            pieces.append(Piece(text[at:start]))
        answers = [Answer(one.asked, one.similarity) for one in sorted(own, key=_by_query)]
        pieces.append(Piece(text[start:end], tuple(sorted(answers, key=lambda one: (one.small, -one.similarity)))))
        at = end
    return (*pieces, Piece(text[at:])) if at < len(text) else tuple(pieces)


def _joined(found: Sequence[_Answered]) -> Iterator[tuple[int, int, list[_Answered]]]:
    own: list[_Answered] = []
    end = -1
    for one in found:
        if own and one.start >= end:
            yield own[0].start, end, own
            own, end = [], -1
        own.append(one)
        end = max(end, one.end)
    if own:
        yield own[0].start, end, own


def _links(text: str, found: Sequence[_Answered]) -> tuple[Link, ...]:
    links = []
    for (_, asked), group in groupby(sorted(found, key=_by_query), key=lambda one: (one.number, one.asked)):
        own = list(group)
        words = dict.fromkeys(" ".join(text[one.start : one.end].split()) for one in own)
        links.append(Link(asked, tuple(words), sum(one.similarity for one in own) / len(own)))
    return tuple(links)


def _by_query(one: _Answered) -> tuple[int, int]:
    return one.number, one.start


def _query_words(matches: Sequence[Match]) -> Iterator[list[Match]]:
    """The matches of the pieces of one word of the query, word by word."""
    own: list[Match] = []
    for match in matches:
        if own and not _one_word(own[-1], match):
            yield own
            own = []
        own.append(match)
    if own:
        yield own


def _one_word(left: Match, right: Match) -> bool:
    touching = left.asked_at >= 0 and left.asked_at + len(left.asked) == right.asked_at
    return touching and _in_word(left.asked[-1]) and _in_word(right.asked[0])


def _whole_word(text: str, start: int, end: int) -> tuple[int, int]:
    """[start, end), as far as the word goes that a piece is of."""
    while 0 < start < len(text) and _in_word(text[start]) and _in_word(text[start - 1]):
        start -= 1
    while 0 < end < len(text) and _in_word(text[end - 1]) and _in_word(text[end]):
        end += 1
    return start, end


def _in_word(character: str) -> bool:
    """Whether it belongs to a word with its neighbours. Where words are not set apart (CJK), it is a word alone."""
    if unicodedata.east_asian_width(character) in "WF":
        return False
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _character_starts(text: str) -> np.ndarray:
    """The byte at which each character begins, and the end; int64 [characters + 1]."""
    if text.isascii():
        return np.arange(len(text) + 1)
    return np.fromiter(accumulate((len(char.encode()) for char in text), initial=0), np.int64, len(text) + 1)


def _by_headings(hit: Hit, query: str) -> tuple[str, ...]:
    """Words of the query none of whose tokens the text answered best: for those, a heading did."""
    if not hit.chunk.title_path:
        return ()
    taken = [range(match.asked_at, match.asked_at + len(match.asked)) for match in hit.matches]
    words = [match for match in _WORD.finditer(query) if match.group().lower() not in STOP_WORDS]
    return tuple(
        word.group() for word in words if not any(own.start < word.end() and word.start() < own.stop for own in taken)
    )
