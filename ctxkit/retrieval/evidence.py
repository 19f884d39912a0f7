"""Evidence: the sentences of a chunk that answer the query, by its tokens' vectors or by its words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ctxkit.protocols import Evidence, Match
from ctxkit.retrieval.terms import terms

_SENTENCE = re.compile(r"\S.*?(?:[.!?]+[\"'”’)\]]*(?=\s|$)|(?=\n)|$)", re.DOTALL)


def lexical_evidence(query: str, text: str, *, limit: int = 3) -> tuple[Evidence, ...]:
    """Byte spans of the sentences (or lines) of `text` that hold most of the query's words, best first.

    The score of a span is the share of the query's distinct words in it, in (0, 1]; equal scores stay in text order.
    It says where the words are, not that the sentence answers: a paraphrase has no evidence.
    """
    wanted = set(terms(query))
    found = [
        Evidence(start, end, len(common) / len(wanted))
        for start, end, sentence in sentences(text)
        if (common := wanted.intersection(terms(sentence)))
    ]
    return tuple(sorted(found, key=lambda span: (-span.score, span.start))[:limit])


def token_evidence(matches: Sequence[Match], text: str, *, limit: int = 3) -> tuple[Evidence, ...]:
    """Byte spans of the sentences (or lines) of `text` that hold the matches, those with most of them first.

    The score of a span is its share of the sum of all similarities, in (0, 1]; equal scores stay in text order.
    """
    total = sum(max(match.similarity, 0.0) for match in matches)
    found = []
    for start, end, _ in sentences(text):
        held = sum(max(match.similarity, 0.0) for match in matches if start <= match.start < end)
        if held > 0:
            found.append(Evidence(start, end, held / total))
    return tuple(sorted(found, key=lambda span: (-span.score, span.start))[:limit])


def sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """First byte, end and text of each sentence (or line)."""
    at_character = at_byte = 0
    for match in _SENTENCE.finditer(text):
        at_byte += len(text[at_character : match.start()].encode())
        at_character = match.start()
        sentence = match.group().rstrip()
        yield at_byte, at_byte + len(sentence.encode()), sentence
