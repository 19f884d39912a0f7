"""Matches: which token of a chunk answered which token of the query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Match, Vectors
from ctxkit.retrieval.document_text import text_start
from ctxkit.retrieval.encoders.token_vectors import TokenVectors, byte_spans


def matches_of(
    query: str, asked: Vectors, chunks: Sequence[Chunk], vectors: Vectors, spans: Sequence[np.ndarray | None]
) -> list[tuple[Match, ...]]:
    """Of each chunk, one match for each row of the query, in its order; none where its tokens' places are not known.

    asked: the query's vectors alone. vectors: of the chunks. spans: int [rows, 2] of each chunk, character spans in
    what was indexed of it: its headings, then its text. Rows that stand in no text (masks, special tokens) and rows
    that a heading answers have no match.
    """
    words = _words(query, asked)
    found: list[tuple[Match, ...]] = []
    for number, (chunk, places) in enumerate(zip(chunks, spans, strict=True)):
        rows = vectors[number]
        if places is None or len(places) != len(rows) or not len(rows):
            found.append(())
            continue
        similar = rows @ asked[0].T  # [rows, query rows]
        winners = similar.argmax(axis=0)
        in_text = np.asarray(places, np.int64) - text_start(chunk)
        standing = (in_text[:, 0] >= 0) & (in_text[:, 1] > in_text[:, 0]) & (in_text[:, 1] <= len(chunk.text))
        in_bytes = byte_spans(chunk.text, np.where(standing[:, None], in_text, 0))
        found.append(
            tuple(
                Match(int(in_bytes[winner, 0]), int(in_bytes[winner, 1]), word, float(similar[winner, lane]), at)
                for lane, (winner, (at, word)) in enumerate(zip(winners.tolist(), words, strict=True))
                if standing[winner] and word
            )
        )
    return found


def _words(query: str, asked: Vectors) -> list[tuple[int, str]]:
    """Where each row of the query begins, and its text; "" where it stands in none or nobody knows."""
    if not isinstance(asked, TokenVectors):
        return [(-1, "")] * len(asked[0])
    return [(start, query[start:end]) for start, end in asked.spans.tolist()]
