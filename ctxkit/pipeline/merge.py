"""One text of a cluster: its representative, and what the other hits say beyond it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from ctxkit.compression import extract
from ctxkit.context import LevelRequest
from ctxkit.pipeline.citations import numbers, split_sentences
from ctxkit.protocols import Counter
from ctxkit.retrieval.clusters import Cluster, Shingle, novel, shingles

_NEW_ALL_OVER = 0.9  # of the word triples of a hit: taken apart it would lose more than it saves


@dataclass(frozen=True, slots=True)
class Piece:
    """What one hit adds to its cluster's text. weight: its relevance, and that of the hits that only repeat it."""

    text: str
    weight: float


def merged(cluster: Cluster) -> list[Piece]:
    """The representative's text, then what each of the others says that repeats nothing before it.

    A sentence (or line) repeats what most of its word triples stand in already, unless it names a number that does
    not. A hit that is new all over is kept as it is; the relevance of one that adds nothing goes to the representative.
    """
    text, weight = cluster.representative.chunk.text, cluster.representative.relevance
    known, figures = shingles(text), numbers(text)
    added: list[Piece] = []
    for hit in cluster.others:
        other = hit.chunk.text
        words = shingles(other)
        fresh = other if novel(words, known, least=_NEW_ALL_OVER) else _fresh(other, known, figures)
        if fresh.strip():
            added.append(Piece(fresh.strip("\n").rstrip(), hit.relevance))
            known, figures = known | words, figures | numbers(other)
        else:
            weight += hit.relevance
    return [Piece(text.rstrip(), weight), *added]


def joined(pieces: Sequence[Piece]) -> str:
    """The pieces as one text."""
    return "\n".join(piece.text for piece in pieces)


def within(text: str, asked: str, tokens: int, counter: Counter) -> str:
    """The text where it has at most so many tokens, else its sentences that matter for the question.

    Where not even the smallest extract fits, that one: `fit` will say what it takes.
    """
    if counter.count(text) <= tokens:
        return text
    source = extract(text, LevelRequest(asked, counter))
    cut = None if source is None else source.at(tokens) or source.smallest
    return text if cut is None else cut.text


def _fresh(text: str, known: Set[Shingle], figures: Set[str]) -> str:
    """The sentences of the text that are new, as they stand in it; what has no words goes with what it follows."""
    kept, taken = [], False
    for sentence in split_sentences(text):
        found, named = shingles(sentence), numbers(sentence)
        if found:
            taken = novel(found, known) or not named <= figures
        if taken:
            kept.append(sentence)
            known, figures = known | found, figures | named
    return "".join(kept).lstrip(" ")
