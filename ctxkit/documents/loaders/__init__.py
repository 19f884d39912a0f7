"""One file per format; `LOADERS` says which suffix belongs to which."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ctxkit.documents.document import Document
from ctxkit.documents.loaders import code, html, jsonl, markdown, pdf, rst, text

Loader = Callable[[bytes, str], list[Document]]
"""(bytes of the file, source name) -> its documents. Raises DocumentError."""

LOADERS: Mapping[str, Loader] = {
    suffix: module.load for module in (text, rst, markdown, html, pdf, code, jsonl) for suffix in module.SUFFIXES
}
"""Lower-case suffix with its dot -> loader. Anything else that is text is loaded by `text.load`."""
