"""Helpers shared by the document tests: a whitespace counter and a PDF written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ctxkit.documents import Chunk, Document


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """A minimal PDF, one Helvetica line under the other."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, lines in enumerate(pages):
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def _assert_covered(document: Document, chunks: Sequence[Chunk]) -> None:
    """The chunks are slices in order, and what lies between them is white space."""
    position = 0
    for chunk in chunks:
        start = document.text.index(chunk.text, position)
        assert not document.text[position:start].strip()
        position = start + len(chunk.text)
    assert not document.text[position:].strip()


@pytest.fixture
def count_words() -> Callable[[Sequence[str]], list[int]]:
    return _count_words


@pytest.fixture
def make_pdf() -> Callable[[Sequence[Sequence[str]]], bytes]:
    return _pdf


@pytest.fixture
def assert_covered() -> Callable[[Document, Sequence[Chunk]], None]:
    return _assert_covered
