"""reStructuredText: section titles become the path, the rest is paragraphs. Exact slices of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ctxkit.documents.decode import decode
from ctxkit.documents.document import Block, Document
from ctxkit.documents.lines import line_spans, paragraphs

SUFFIXES = (".rst", ".rest")

_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*$")


def load(data: bytes, source: str) -> list[Document]:
    """One document with a block per title and paragraph; the order in which adornments appear gives the levels.

    Raises DocumentError.
    """
    decoded = decode(data, source)
    return [Document(source, decoded.text, tuple(_blocks(decoded.text)), decoded.origin())]


def _blocks(text: str) -> Iterator[Block]:
    spans = line_spans(text)
    lines = [text[start:end].rstrip() for start, end in spans]
    path: list[str] = []
    styles: list[str] = []
    done = i = 0
    while i < len(lines):
        title = _title(lines, i)
        if title is None:
            i += 1
            continue
        name, style, after = title
        yield from _paragraphs(text, done, spans[i][0], path)
        if style not in styles:
            styles.append(style)
        path = [*path[: styles.index(style)], name]
        done = spans[after - 1][1]
        yield Block(spans[i][0], done, "heading", tuple(path))
        i = after
    yield from _paragraphs(text, done, len(text), path)


def _paragraphs(text: str, start: int, end: int, path: list[str]) -> Iterator[Block]:
    for first, last in paragraphs(text, start, end):
        yield Block(first, last, "paragraph", tuple(path))


def _title(lines: list[str], i: int) -> tuple[str, str, int] | None:
    """Title, adornment and first line after it, where a section title starts at line i: after a blank line or rule."""
    if i and lines[i - 1]:
        return None
    if i + 2 < len(lines) and _RULE.match(lines[i]) and lines[i + 2] == lines[i] and _fits(lines[i + 1], lines[i]):
        return lines[i + 1].strip(), lines[i][0] * 2, i + 3
    if i + 1 < len(lines) and _fits(lines[i], lines[i + 1]) and not lines[i][0].isspace():
        return lines[i].strip(), lines[i + 1][0], i + 2
    return None


def _fits(title: str, rule: str) -> bool:
    plain = bool(title.strip()) and not _RULE.match(title)
    return plain and bool(_RULE.match(rule)) and len(rule) >= len(title.strip())
