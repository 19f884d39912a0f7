"""Evidence: slices of the source that a worker quoted, each found there before it counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctxkit.compression.text.score import relevance
from ctxkit.context import Part, passage
from ctxkit_agents.chain.source import Chunk, Source

_WORD = re.compile(r"\w")
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00ad": None})
_LEAST_RELEVANCE = 0.25  # of a quote that shares no word with the question; a worker chose it all the same


@dataclass(frozen=True, slots=True)
class Evidence:
    """text: as it stands in the source. source: the id of the Part ("source" where one text was given).

    start, end: half-open, in characters of that Part's content, or of the text. worker: the number of its chunk.
    """

    text: str
    source: str
    start: int
    end: int
    worker: int


@dataclass(frozen=True, slots=True, order=True)
class Quote:
    """start, end: half-open, in characters of the whole source. worker: the number of the chunk."""

    start: int
    end: int
    worker: int


def find(quote: str, text: str) -> tuple[int, int] | None:
    """Where in the text the quote stands: exactly, else but for white space, case and the form of quotes and dashes.

    >>> find("it  RAINS", "Today it rains.")
    (6, 14)
    """
    quote = quote.strip()
    if not _WORD.search(quote):
        return None
    at = text.find(quote)
    if at >= 0:
        return at, at + len(quote)
    wanted, _ = _folded(quote)
    plain, places = _folded(text)
    at = plain.find(wanted)
    return (places[at], places[at + len(wanted) - 1] + 1) if wanted and at >= 0 else None


def verified(quotes: Iterable[str], source: Source, chunk: Chunk) -> tuple[list[Quote], int]:
    """The quotes that stand in the chunk, in order; and how many do not. A label alone is no quote."""
    found: set[Quote] = set()
    missing = 0
    for quote in quotes:
        place = find(quote, source.text[chunk.start : chunk.end])
        inside = source.clipped(chunk.start + place[0], chunk.start + place[1]) if place else None
        if inside is None:
            missing += 1
        else:
            found.add(Quote(*inside, chunk.number))
    return sorted(found), missing


def evidence_of(quotes: Iterable[Quote], source: Source) -> tuple[Evidence, ...]:
    """By Part: a quote that goes on over several is one piece of evidence of each. In the order of the source."""
    return tuple(
        Evidence(source.content(span), span.source, span.start, span.end, quote.worker)
        for quote in sorted(quotes)
        for span in source.spans(quote.start, quote.end)
    )


def blocks(quotes: Iterable[Quote], source: Source) -> list[tuple[Quote, ...]]:
    """Quotes that overlap, or stand side by side in the source, together."""
    found: list[list[Quote]] = []
    reached = -1
    for quote in sorted(quotes):
        if found and not source.spans_words(reached, quote.start):
            found[-1].append(quote)
        else:
            found.append([quote])
        reached = max(reached, quote.end)
    return [tuple(block) for block in found]


def passages(blocks: Sequence[tuple[Quote, ...]], source: Source, question: str) -> list[Part]:
    """A passage for each block, with who said it; worth more the more it says of the question."""
    texts = [source.text[block[0].start : max(quote.end for quote in block)] for block in blocks]
    asked = relevance(texts, question) if question else [1.0] * len(texts)
    return [
        passage(
            text.strip(),
            id=f"evidence-{number}",
            title=source.label_at(block[0].start),
            relevance=_LEAST_RELEVANCE + (1 - _LEAST_RELEVANCE) * worth,
            verbatim=True,
        )
        for number, (block, text, worth) in enumerate(zip(blocks, texts, asked, strict=True), 1)
    ]


def _folded(text: str) -> tuple[str, list[int]]:
    """The text without what may differ, and where each of its characters came from."""
    chars: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        for one in char.translate(_PLAIN).casefold():
            if not one.isspace():
                chars.append(one)
                places.append(place)
    return "".join(chars), places
