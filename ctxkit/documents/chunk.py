"""A chunk: a slice of a document that still knows where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of one document, small enough to be a passage.

    id: stable across runs while source, place and text stay the same.
    source: the document, as a POSIX path relative to the folder that was indexed (or any name the caller gave).
    text: the slice itself. For Markdown, text and code it is `source_bytes[start_byte:end_byte]` decoded; for JSONL a
        slice of the record's text field; for HTML and PDF a slice of the extracted text.
    title_path: headings (or class and function names) that enclose the slice, outermost first.
    start_line, end_line: 1-based lines of the original file, both included; for PDF lines of the page's text.
    start_byte, end_byte: half-open byte span. In the file for Markdown, text and code; of the record's whole line in
        the file for JSONL; in the UTF-8 of the extracted text for HTML and PDF.
    page: 1-based page for paged formats.
    metadata: what the document carries besides its text (a JSONL record's `id`, for one).
    """

    id: str
    source: str
    text: str
    title_path: tuple[str, ...] = ()
    start_line: int = 1
    end_line: int = 1
    start_byte: int = 0
    end_byte: int = 0
    page: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The headings in one line, or the source where there are none."""
        return " > ".join(self.title_path) or self.source

    @property
    def location(self) -> str:
        """Where to open it: `docs/budget.md:10-24`, `paper.pdf p.3:1-9`."""
        lines = f"{self.start_line}" if self.start_line == self.end_line else f"{self.start_line}-{self.end_line}"
        return f"{self.source} p.{self.page}:{lines}" if self.page is not None else f"{self.source}:{lines}"
