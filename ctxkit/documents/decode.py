"""Bytes to text, so that every char can be traced to its bytes."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from ctxkit.documents.origin import TextOrigin
from ctxkit.errors import DocumentError

_MARKS = (  # the four-byte marks first: UTF-32-LE's begins with UTF-16-LE's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text without byte order mark, and how to get the bytes back."""

    text: str
    encoding: str
    prefix_bytes: int

    def origin(self) -> TextOrigin:
        return TextOrigin(self.text, encoding=self.encoding, prefix_bytes=self.prefix_bytes)


def byte_order_mark(data: bytes) -> tuple[str, int] | None:
    """The codec that a byte order mark at the start of `data` names, and the mark's length in bytes."""
    return next(((codec, len(mark)) for mark, codec in _MARKS if data.startswith(mark)), None)


def decode(data: bytes, source: str, *, encoding: str = "utf-8") -> Decoded:
    """`data` as text: by its byte order mark, else by `encoding`.

    Raises DocumentError when the bytes are not of that encoding (the byte offset is named), hold NUL, or are empty.
    """
    codec, prefix = byte_order_mark(data) or (encoding, 0)
    try:
        text = data[prefix:].decode(codec)
    except UnicodeDecodeError as error:
        offset = prefix + error.start
        raise DocumentError(
            source, f"not {codec.upper()} text: byte 0x{data[offset]:02x} at byte offset {offset:,}"
        ) from error
    except LookupError as error:  # a codec that makes bytes, such as base64
        raise DocumentError(source, f"unknown text encoding {codec!r}") from error
    if not text or text.isspace():
        raise DocumentError(source, "empty: nothing but white space" if data else "empty file")
    if "\0" in text:
        raise DocumentError(source, f"binary file: NUL at char {text.index(chr(0)):,}")
    return Decoded(text, codec, prefix)
