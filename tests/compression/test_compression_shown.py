"""A compression can be looked at: what went, what stayed, and nothing that the source or the marks do not hold."""

from __future__ import annotations

import pytest

from ctxkit.compression import Compression, Head, RareWords, compress
from ctxkit.compression.shown import coloured, fragment_html, headline, page, pieces, plain
from ctxkit.protocols import Counter

TEXT = "The <b>socket</b> of server 17 & 18 waits for INV-20931.\nIt has waited since 10:31, they say, for no reason.\n"


@pytest.fixture
def made(counter: Counter) -> Compression:
    return compress(TEXT, RareWords(), rate=0.5, counter=counter)


def test_pieces_without_marks_are_the_source_and_without_what_went_the_output(made: Compression) -> None:
    result = made.results[0]
    shown = list(pieces(result.source, result.fragments))
    assert "".join(piece.text for piece in shown if piece.fate != "mark") == TEXT
    assert "".join(piece.text for piece in shown if piece.fate != "gone") == result.text
    assert {piece.fate for piece in shown} >= {"kept", "gone"}


def test_gaps_are_what_went(made: Compression) -> None:
    result = made.results[0]
    gone = [piece.text for piece in pieces(result.source, result.fragments) if piece.fate == "gone"]
    assert [TEXT[start:end] for start, end in result.gaps] == gone


def test_a_terminal_without_colours_sees_brackets(made: Compression) -> None:
    text = plain(made.results[0])
    assert "[-" in text and "-]" in text
    assert coloured(made.results[0]).plain.replace("…", "") == TEXT.replace("…", "")


def test_html_is_escaped_and_says_the_tokens(made: Compression) -> None:
    html = fragment_html(made)
    assert "<b>" not in html and "&lt;" in html and "<del" in html
    assert headline(made) in html and made._repr_html_() == html
    assert page(made, "a & b <i>").count("<html") == 1 and "a &amp; b &lt;i&gt;" in page(made, "a & b <i>")


def test_what_is_whole_shows_nothing_struck_out(counter: Counter) -> None:
    whole = compress(["", TEXT], Head(), rate=1.0, counter=counter)
    assert "<del" not in fragment_html(whole) and plain(whole.results[1]) == TEXT and plain(whole.results[0]) == ""
