"""What is indexed of a chunk, and by what name its vectors are known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval.terms import terms


def document_text(chunk: Chunk) -> str:
    """What is encoded for a chunk: its headings, then its text."""
    return _headings(chunk) + chunk.text


def text_start(chunk: Chunk) -> int:
    """Where the chunk's own text begins in that, in characters."""
    return len(_headings(chunk))


def document_terms(chunk: Chunk) -> list[str]:
    """What lexical search sees of a chunk: the terms of its headings and its text, in order."""
    return terms(" ".join((*chunk.title_path, chunk.text)))


def checked_sources(sources: Iterable[tuple[str, str, Iterable[Chunk]]]) -> list[tuple[str, str, list[Chunk]]]:
    """(source, content hash, chunks) of several sources. Raises ValueError for a chunk of another source."""
    given = [(source, content_hash, list(chunks)) for source, content_hash, chunks in sources]
    for source, _, chunks in given:
        for chunk in chunks:
            if chunk.source != source:
                raise ValueError(f"chunk {chunk.id!r} is of source {chunk.source!r}, expected {source!r}")
    return given


def text_key(text: str) -> str:
    """Names a text by its content, so that equal texts share their vectors."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _headings(chunk: Chunk) -> str:
    return " > ".join(chunk.title_path) + "\n" if chunk.title_path else ""
