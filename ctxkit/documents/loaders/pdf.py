"""PDF: the text of each page by pdfium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

from ctxkit.documents.document import Block, Document
from ctxkit.documents.lines import paragraphs
from ctxkit.documents.origin import PagedOrigin
from ctxkit.errors import DocumentError, MissingExtra

SUFFIXES = (".pdf",)

_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# pdfium writes U+FFFE or U+0002 for a hyphen at the end of a line; surrogates and the rest have no meaning in text
_HYPHEN = re.compile("[\x02\ufffe]")
_JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f\u00ad\ufeff\uffff\ud800-\udfff]")


def load(data: bytes, source: str) -> list[Document]:
    """One document with the pages one after the other; lines are counted within each page's text.

    Words that are hyphenated over a line end stay as they are.
    Raises DocumentError when the file is broken, encrypted or without text, MissingExtra without pypdfium2.
    """
    pages = [_clean(page) for page in _page_texts(data, source)]
    if not any(page.strip() for page in pages):
        raise DocumentError(source, f"no text in {len(pages):,} page(s): scanned images are not read")
    text, starts = "", list[int]()
    blocks: list[Block] = []
    for number, page in enumerate(pages, 1):
        starts.append(len(text))
        spans = paragraphs(page)
        blocks.extend(Block(starts[-1] + start, starts[-1] + end, page=number) for start, end in spans)
        text += page.rstrip("\n") + "\n\n"
    return [Document(source, text, tuple(blocks), PagedOrigin(text, starts))]


def _page_texts(data: bytes, source: str) -> Iterator[str]:
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingExtra("pypdfium2", "retrieval") from error
    try:
        with closing(pypdfium2.PdfDocument(data)) as pdf:
            for i in range(len(pdf)):
                with closing(pdf[i]) as page, closing(page.get_textpage()) as text:
                    yield text.get_text_bounded()
    except pypdfium2.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        reason = "encrypted PDF: a password is needed" if encrypted else f"broken PDF: {error}"
        raise DocumentError(source, reason) from error


def _clean(page: str) -> str:
    """Line ends as `\\n`, hyphens as hyphens, no control characters."""
    return _JUNK.sub("", _HYPHEN.sub("-", _LINE_END.sub("\n", page)))
