"""Markdown: headings become the path; fences, tables and lists are blocks. Exact slices of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ctxkit.documents.decode import decode
from ctxkit.documents.document import Block, Document, Kind
from ctxkit.documents.lines import line_spans

SUFFIXES = (".md", ".markdown", ".mdx", ".mkd", ".qmd", ".rmd")

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_TABLE_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]+\S|[ \t]*$)")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_INDENTED = re.compile(r"(?: {4}|\t)")
_VERBATIM_HTML = re.compile(r" {0,3}<(!--|pre\b|script\b|style\b|textarea\b)", re.IGNORECASE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKUP = re.compile(r"\*+|`+|\s*\{#[^}]*\}\s*$")
_SETEXT_LINES = 3  # a longer paragraph over a dashed line is a paragraph and a rule, whatever CommonMark says


def load(data: bytes, source: str) -> list[Document]:
    """One document with a block per heading, paragraph, list, table and fence. Raises DocumentError."""
    decoded = decode(data, source)
    return [Document(source, decoded.text, tuple(parse(decoded.text)), decoded.origin())]


def parse(text: str) -> Iterator[Block]:
    """The blocks of a Markdown text, in order; every char that is not white space is in exactly one."""
    return _Parser(text).blocks()


@dataclass
class _Parser:
    """Reads line by line. Each construct's method returns the first line after it, or None where it does not start.

    unclosed: fence chars and closing tags that do not come any more, with the shortest fence known to stay open.
    """

    text: str
    spans: list[tuple[int, int]] = field(init=False)
    lines: list[str] = field(init=False)
    path: list[tuple[int, str]] = field(default_factory=list)
    unclosed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spans = line_spans(self.text)
        self.lines = [self.text[start:end].rstrip("\r\n") for start, end in self.spans]

    def blocks(self) -> Iterator[Block]:
        i = self._front_matter()
        if i:
            yield self._block(0, i, "code")
        while i < len(self.lines):
            if not self.lines[i].strip():
                i += 1
                continue
            kind, after = self._next(i)
            yield self._block(i, after, kind)
            i = after

    def _block(self, first: int, after: int, kind: Kind) -> Block:
        titles = tuple(title for _, title in self.path if title)
        return Block(self.spans[first][0], self.spans[after - 1][1], kind, titles)

    def _next(self, i: int) -> tuple[Kind, int]:
        readers: tuple[tuple[Kind, int | None], ...] = (
            ("code", self._fence(i)),
            ("heading", self._atx(i)),
            ("code", self._verbatim_html(i)),
            ("table", self._table(i)),
        )
        for kind, after in readers:
            if after is not None:
                return kind, after
        if _RULE.match(self.lines[i]):
            return "paragraph", i + 1
        if _ITEM.match(self.lines[i]):
            return "list", self._list(i)
        if _INDENTED.match(self.lines[i]):
            return "code", self._while_indented(i)
        return self._paragraph(i)

    def _front_matter(self) -> int:
        if not self.lines or self.lines[0].rstrip() not in ("---", "+++"):
            return 0
        ends = {"---": ("---", "..."), "+++": ("+++",)}[self.lines[0].rstrip()]
        if len(self.lines) < 2 or not self.lines[1].strip():
            return 0
        closing = (i for i in range(1, len(self.lines)) if self.lines[i].rstrip() in ends)
        return next(closing, -1) + 1

    def _fence(self, i: int) -> int | None:
        opening = _FENCE.match(self.lines[i])
        if not opening:
            return None
        mark = opening[1]
        if len(mark) < self.unclosed.get(mark[0], 1 << 30):
            closing = re.compile(rf"[ \t]*{mark[0]}{{{len(mark)},}}[ \t]*$")
            for k in range(i + 1, len(self.lines)):
                if closing.match(self.lines[k]):
                    return k + 1
            self.unclosed[mark[0]] = len(mark)
        indent = len(self.lines[i]) - len(self.lines[i].lstrip())
        return len(self.lines) if indent <= 3 else None

    def _atx(self, i: int) -> int | None:
        match = _ATX.match(self.lines[i])
        if match:
            self._enter(len(match[1]), match[2] or "")
        return i + 1 if match else None

    def _enter(self, level: int, title: str) -> None:
        while self.path and self.path[-1][0] >= level:
            self.path.pop()
        self.path.append((level, _MARKUP.sub("", _LINK.sub(r"\1", title)).strip(" \t¶§")))

    def _verbatim_html(self, i: int) -> int | None:
        match = _VERBATIM_HTML.match(self.lines[i])
        if not match:
            return None
        closing = "-->" if match[1] == "!--" else f"</{match[1].lower()}>"
        if closing not in self.unclosed:
            for k in range(i, len(self.lines)):
                if closing in self.lines[k].lower():
                    return k + 1
            self.unclosed[closing] = i
        return i + 1

    def _table(self, i: int) -> int | None:
        head, rule = self.lines[i], self.lines[i + 1] if i + 1 < len(self.lines) else ""
        if "|" not in head or "|" not in rule or not _TABLE_RULE.match(rule):
            return None
        after = i + 2
        while after < len(self.lines) and "|" in self.lines[after]:
            after += 1
        return after

    def _while_indented(self, i: int) -> int:
        last = i
        while i < len(self.lines) and (_INDENTED.match(self.lines[i]) or not self.lines[i].strip()):
            last = i if self.lines[i].strip() else last
            i += 1
        return last + 1

    def _list(self, i: int) -> int:
        """Items, what is indented below them, and lazy continuation lines; blank lines between two items too."""
        last = i
        for k in range(i + 1, len(self.lines)):
            line = self.lines[k]
            if not line.strip():
                continue
            belongs = _ITEM.match(line) or line[0] in " \t"
            if self._interrupts(k) or (k - last > 1 and not belongs):
                break
            last = k
        return last + 1

    def _interrupts(self, i: int) -> bool:
        """Whether a heading, fence, rule, table or comment starts at line i."""
        line = self.lines[i]
        if _ATX.match(line) or _RULE.match(line) or _VERBATIM_HTML.match(line):
            return True
        return self._fence(i) is not None or self._table(i) is not None

    def _paragraph(self, i: int) -> tuple[Kind, int]:
        k = i + 1
        while k < len(self.lines) and self.lines[k].strip():
            underline = _SETEXT.match(self.lines[k])
            if underline and k - i <= _SETEXT_LINES and not self.lines[i].lstrip().startswith(">"):
                self._enter(1 if underline[1][0] == "=" else 2, " ".join(s.strip() for s in self.lines[i:k]))
                return "heading", k + 1
            if self._interrupts(k) or _ITEM.match(self.lines[k]):
                break
            k += 1
        return "paragraph", k
