"""HTML: the main text by trafilatura, as Markdown, with every word tied back to the source file."""

from __future__ import annotations

import codecs
import html
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from ctxkit.documents.align import align
from ctxkit.documents.decode import decode
from ctxkit.documents.document import Document
from ctxkit.documents.loaders import markdown
from ctxkit.documents.origin import AlignedOrigin
from ctxkit.errors import DocumentError, MissingExtra

SUFFIXES = (".html", ".htm", ".xhtml")

_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_UNSEEN = re.compile(
    r"<!--.*?-->|<(script|style|head|template|noscript)\b[^>]*>.*?</\1\s*>|<[a-zA-Z/!?][^>]*>",
    re.DOTALL | re.IGNORECASE,
)
_ESCAPE = re.compile(r"(?<!^)\\([_*\[\]])", re.MULTILINE)  # first in a line it keeps a list from starting: left alone
_WORD = re.compile(r"\w+")
_ENCODED_WORD = re.compile(r"(?:\w|&(?:#\d+|#[xX][0-9a-fA-F]+|\w+);)+")
_log = logging.getLogger(__name__)


def load(data: bytes, source: str) -> list[Document]:
    """One document: the extracted text with headings as path; lines are those of the HTML file.

    Where trafilatura finds no main text, all visible text is taken, and the log says so.
    Raises DocumentError for a page without text and MissingExtra without trafilatura.
    """
    page = decode(data, source, encoding=_declared_encoding(data, source)).text
    text = _extract(page)
    if not text:
        text = _visible_text(page)
        if not text:
            raise DocumentError(source, "no text in this page")
        _log.info("%s: no main text found, all visible text is taken", source)
    return [Document(source, text, tuple(markdown.parse(text)), AlignedOrigin(text, page, _anchors(text, page)))]


def _declared_encoding(data: bytes, source: str) -> str:
    match = _CHARSET.search(data[:4096])
    if not match:
        return "utf-8"
    name = match[1].decode("ascii", "replace")
    try:
        codec = codecs.lookup(name)
    except LookupError as error:
        raise DocumentError(source, f"unknown encoding {name!r} declared") from error
    # a declaration that could be read as ASCII is no UTF-16, and browsers read Latin-1 as Windows-1252
    return {"iso8859-1": "cp1252", "ascii": "cp1252", "utf-16": "utf-8"}.get(codec.name, codec.name)


def _extract(page: str) -> str:
    try:
        import trafilatura
    except ImportError as error:
        raise MissingExtra(error.name or "trafilatura", "retrieval") from error
    text = trafilatura.extract(
        page,
        output_format="markdown",
        favor_recall=True,
        include_comments=False,
        include_tables=True,
        include_formatting=True,
    )
    parts = re.split(r"(^```.*?^```)", (text or "").strip(), flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _ESCAPE.sub(r"\1", part) for part in parts)


def _anchors(text: str, page: str) -> list[tuple[int, int]]:
    """Pairs (offset in the extracted text, offset in the page) of the words found in both."""
    extracted = [(match[0], match.start()) for match in _WORD.finditer(text)]
    seen = list(_page_words(page))
    pairs = align([word for word, _ in extracted], [word for word, _ in seen])
    return [(extracted[i][1], seen[k][1]) for i, k in pairs]


def _page_words(page: str) -> Iterator[tuple[str, int]]:
    """The visible words of the page with their offsets, entities decoded."""
    visible = _UNSEEN.sub(lambda match: " " * len(match[0]), page)
    for match in _ENCODED_WORD.finditer(visible):
        if "&" not in match[0]:
            yield match[0], match.start()
            continue
        for word in _WORD.findall(html.unescape(match[0])):
            yield word, match.start()


class _VisibleText(HTMLParser):
    """Collects the text outside of script, style and the like; headings as Markdown headings."""

    _HIDDEN = frozenset({"script", "style", "template", "noscript", "title"})
    _INLINE_NAMES = "a abbr b bdi bdo cite code em font i kbd label mark q s samp small span strong sub sup u var"
    _INLINE = frozenset(_INLINE_NAMES.split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in self._HIDDEN
        if re.fullmatch("h[1-6]", tag):
            self.pieces.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "li":
            self.pieces.append("\n- ")
        elif tag not in self._INLINE:
            self.pieces.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self._HIDDEN))
        if tag not in self._INLINE:
            self.pieces.append("\n\n" if tag != "li" else "\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(re.sub(r"\s+", " ", data))


def _visible_text(page: str) -> str:
    parser = _VisibleText()
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(parser.pieces).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join("" if re.fullmatch("#+|-", line) else line for line in lines)).strip()
