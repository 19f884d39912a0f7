from __future__ import annotations

import logging

import pytest

from ctxkit.documents import Chunker, load
from ctxkit.documents.align import align
from ctxkit.documents.loaders import html
from ctxkit.errors import DocumentError

PAGE = """<!DOCTYPE html>
<html><head><title>Budget guide</title><style>p { color: red }</style></head>
<body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/b">Reserve</a></li></ul></nav>
<article>
<h1>Budget guide</h1>
<p>The budget decides how many tokens the prompt may take, and it is
checked before the model is called &amp; never after. Caf&eacute; owners like <b>this</b> too.</p>

<h2>Reserve</h2>
<!-- The reserve keeps no comments. -->
<p>The reserve keeps room for the answer. Without a reserve the reply is
cut in the middle of a sentence, which nobody likes to read.</p>
<pre><code>fit(parts)
# not a heading
</code></pre>
<table><tr><th>Name</th><th>Tokens</th></tr>
<tr><td>alpha</td><td>12</td></tr></table>
</article>
<footer>Copyright nobody. All rights reserved.</footer>
</body></html>
"""


@pytest.fixture
def trafilatura():
    return pytest.importorskip("trafilatura", exc_type=ImportError)


def line_of(text: str) -> int:
    return PAGE[: PAGE.index(text)].count("\n") + 1


def test_a_page_is_chunked_by_its_headings_with_lines_of_the_source(trafilatura, write, count_words):
    (document,) = load(write("page.html", PAGE))
    first, second = Chunker(count_words, 200).chunks(document)
    assert first.title_path == ("Budget guide",)
    assert second.title_path == ("Budget guide", "Reserve")
    assert (first.start_line, first.end_line) == (line_of("<h1>"), line_of("too.</p>"))
    assert (second.start_line, second.end_line) == (line_of("<h2>"), line_of("alpha"))
    assert "Café" in first.text
    assert "Home" not in document.text
    assert "Copyright" not in document.text
    assert document.text.encode()[second.start_byte : second.end_byte].decode() == second.text


def test_a_page_without_main_text_gives_all_visible_text(trafilatura, write, count_words, caplog, monkeypatch):
    monkeypatch.setattr(trafilatura, "extract", lambda *args, **options: None)
    with caplog.at_level(logging.INFO):
        (document,) = load(write("page.html", PAGE))
    assert "no main text found" in caplog.text
    assert "# Budget guide" in document.text
    assert "color: red" not in document.text
    reserve = next(c for c in Chunker(count_words, 200).chunks(document) if "Reserve" in c.title_path)
    assert reserve.start_line == line_of("<h2>")


def test_a_page_without_text_is_refused(trafilatura, write):
    with pytest.raises(DocumentError, match="no text in this page"):
        load(write("page.html", "<html><body><script>x()</script></body></html>"))


def test_a_declared_encoding_is_used(trafilatura, write):
    page = PAGE.replace("<head>", '<head><meta charset="iso-8859-1">').replace("&eacute;", "é")
    (document,) = load(write("page.html", page.encode("latin-1")))
    assert "Café" in document.text
    with pytest.raises(DocumentError, match="unknown encoding 'klingon'"):
        load(write("bad.html", page.replace("iso-8859-1", "klingon")))


def test_words_are_found_behind_tags_and_entities_but_not_in_scripts():
    words = list(html._page_words("<p title='x > y'>a&nbsp;b caf&eacute;</p><script>no</script><!-- no --> <b>c</b>d"))
    assert [word for word, _ in words] == ["y", "a", "b", "café", "c", "d"]


def test_repeated_words_do_not_pull_the_alignment_away():
    source = [
        "menu",
        "intro",
        "reserve",
        "budget",
        "title",
        "intro",
        "the",
        "budget",
        "is",
        "small",
        "reserve",
        "the",
        "reserve",
        "is",
        "large",
        "menu",
    ]
    extracted = ["title", "intro", "the", "budget", "is", "small", "XX", "reserve", "the", "reserve", "is", "large"]
    assert align(extracted, source) == [
        (0, 4),
        (1, 5),
        (2, 6),
        (3, 7),
        (4, 8),
        (5, 9),
        *((i, i + 3) for i in range(7, 12)),
    ]


def test_an_alignment_ascends_on_both_sides():
    pairs = align(
        ["a", "b", "c", "d", "e", "f", "g", "a", "b", "c"], ["c", "b", "a", "d", "e", "a", "b", "c", "x", "g", "f"]
    )
    assert all(left[0] < right[0] and left[1] < right[1] for left, right in zip(pairs, pairs[1:], strict=False))
    assert align([], ["a"]) == align(["a"], []) == []
