"""Plain text: paragraphs, exact slices of the file."""

from __future__ import annotations

from pathlib import PurePosixPath

from ctxkit.documents.decode import decode
from ctxkit.documents.document import Block, Document, Kind
from ctxkit.documents.lines import paragraphs

LINE_BASED = (".csv", ".tsv", ".log", ".json", ".xml", ".svg", ".ini", ".cfg", ".conf", ".properties")
SUFFIXES = (".txt", ".text", ".adoc", ".org", ".tex", ".srt", *LINE_BASED)


def load(data: bytes, source: str) -> list[Document]:
    """One document whose blocks are the runs of lines between blank lines. Raises DocumentError."""
    decoded = decode(data, source)
    kind: Kind = "lines" if PurePosixPath(source).suffix.lower() in LINE_BASED else "paragraph"
    blocks = tuple(Block(start, end, kind) for start, end in paragraphs(decoded.text))
    return [Document(source, decoded.text, blocks, decoded.origin())]
