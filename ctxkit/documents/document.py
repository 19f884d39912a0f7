"""A document: its text, the blocks the text is made of, and the way back to the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ctxkit.documents.origin import Origin

Kind = Literal["paragraph", "heading", "list", "table", "code", "lines"]
"""What a block is. "code" and "table" stay whole wherever they fit; "lines" is text whose line ends mean something."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of the text that belongs together.

    start, end: half-open char span in the document's text.
    kind: decides where the block may be cut when it is too long.
    path: headings (or class and function names) that enclose it, outermost first; a heading encloses itself.
    page: 1-based page for paged formats. Blocks of two pages never share a chunk.
    """

    start: int
    end: int
    kind: Kind = "paragraph"
    path: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One text to be chunked.

    source: name of the file, as a POSIX path relative to the folder that was indexed.
    text: what chunks are slices of.
    blocks: in order, disjoint; together they cover every char of `text` that is not white space.
    origin: maps a span of `text` to lines, bytes and page of the file.
    metadata: handed to each chunk unchanged.
    notes: what of the file could not be read, where the rest could; on the file's first document.
    """

    source: str
    text: str
    blocks: tuple[Block, ...]
    origin: Origin
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
