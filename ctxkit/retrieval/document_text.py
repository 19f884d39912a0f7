"""What is encoded of a chunk, and by what name its vectors are known."""

from __future__ import annotations

import hashlib

from ctxkit.documents.chunk import Chunk


def document_text(chunk: Chunk) -> str:
    """What is encoded for a chunk: its headings, then its text."""
    return _headings(chunk) + chunk.text


def text_start(chunk: Chunk) -> int:
    """Where the chunk's own text begins in that, in characters."""
    return len(_headings(chunk))


def text_key(text: str) -> str:
    """Names a text by its content, so that equal texts share their vectors."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _headings(chunk: Chunk) -> str:
    return " > ".join(chunk.title_path) + "\n" if chunk.title_path else ""
