"""Near-duplicate removal: a hit that says what a better one has said already is left out."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import regex

from ctxkit.retrieval.clusters.vectors import unit_rows
from ctxkit.retrieval.hit import Hit

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[\w\p{{M}}])+")

Shingle = tuple[str, ...]


def without_near_duplicates(
    hits: Sequence[Hit],
    vectors: np.ndarray | None = None,
    *,
    cosine: float | None = None,
    jaccard: float | None = None,
    words: int = 3,
) -> list[Hit]:
    """The hits, in their order, without those that repeat an earlier one that stayed.

    cosine: a hit whose vector has at least this cosine with one that stayed goes; needs `vectors`, [hits, dims].
    jaccard: a hit whose shingles have at least this Jaccard index with one that stayed goes (Broder, 1997).
    words: length of a shingle. Where both are given, either suffices; where neither is, shingles decide at 0.8.

    The start of the hits decides its own outcome: more hits at the end never change which of the first stay.
    """
    if cosine is None and jaccard is None:
        jaccard = 0.8
    if cosine is not None and vectors is None:
        raise ValueError("`cosine` compares vectors: pass `vectors`, one per hit")
    points = unit_rows(vectors, len(hits)) if cosine is not None and vectors is not None else None
    texts = [shingles(hit.chunk.text, words) if jaccard is not None else frozenset[Shingle]() for hit in hits]
    stayed: list[int] = []
    for i in range(len(hits)):
        near = points is not None and stayed and float((points[stayed] @ points[i]).max()) >= (cosine or 0.0)
        same = jaccard is not None and any(_jaccard(texts[i], texts[other]) >= jaccard for other in stayed)
        if not (near or same):
            stayed.append(i)
    return [hits[i] for i in stayed]


def shingles(text: str, words: int = 3) -> frozenset[Shingle]:
    """Runs of so many case-folded words, or the whole where it has fewer; single characters of unspaced scripts.

    >>> sorted(shingles("The cat sat. The cat ran", 2))[:3]
    [('cat', 'ran'), ('cat', 'sat'), ('sat', 'the')]
    """
    found = [word.casefold() for word in _WORD.findall(text)]
    if len(found) <= words:
        return frozenset([tuple(found)] if found else [])
    return frozenset(zip(*(found[i:] for i in range(words)), strict=False))


def novel(found: Set[Shingle], known: Set[Shingle], *, least: float = 0.3) -> bool:
    """Whether at least this share of a text's shingles is new; a text without words is not."""
    return bool(found) and len(found - known) >= least * len(found)


def _jaccard(one: Set[Shingle], other: Set[Shingle]) -> float:
    """Of two texts without words 1.0: they say the same."""
    either = len(one | other)
    return len(one & other) / either if either else 1.0
