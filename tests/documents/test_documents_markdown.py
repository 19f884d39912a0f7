from __future__ import annotations

import pytest

from ctxkit.documents import Chunker, load


@pytest.fixture
def chunk(write, count_words, assert_covered):
    """Chunks a Markdown text and checks what every chunk of a text file must hold."""

    def chunk(text: str | bytes, max_tokens: int = 30):
        data = text.encode() if isinstance(text, str) else text
        (document,) = load(write("page.md", data))
        chunks = Chunker(count_words, max_tokens).chunks(document)
        assert_covered(document, chunks)
        for c in chunks:
            assert data[c.start_byte : c.end_byte].decode() == c.text
            assert c.start_line == data[: c.start_byte].count(b"\n") + 1
            assert c.end_line == data[: c.end_byte].count(b"\n") + 1
            assert len(c.text.split()) <= max_tokens
        return chunks

    return chunk


def test_headings_give_the_path(chunk):
    chunks = chunk("# A\n\nintro\n\n## B\n\ntext b\n\n### C ###\ntext c\n\n## D\n\ntext d\n")
    assert [c.title_path for c in chunks] == [("A",), ("A", "B"), ("A", "B", "C"), ("A", "D")]
    assert [c.text for c in chunks][1] == "## B\n\ntext b"


def test_setext_headings_give_the_path(chunk):
    chunks = chunk("Top\n===\n\nintro\n\nSub part\n--------\ntext\n")
    assert [c.title_path for c in chunks] == [("Top",), ("Top", "Sub part")]


def test_a_title_is_free_of_markup(chunk):
    (c,) = chunk("## The **bold** `code` of [a link](http://x.y) {#anchor}\n\ntext\n")
    assert c.title_path == ("The bold code of a link",)


def test_a_heading_stays_with_the_text_below_it(chunk):
    body = "word " * 28
    assert [c.text.split()[:2] for c in chunk(f"# A\n\n{body}\n\n# B\n\n{body}\n")] == [["#", "A"], ["#", "B"]]


def test_a_heading_takes_the_first_piece_of_a_text_that_is_too_long(chunk):
    chunks = chunk("# Title\n\n" + "One two three four five. " * 12)
    assert chunks[0].text.startswith("# Title\n\nOne two")
    assert all(c.text.startswith("One") for c in chunks[1:])


def test_a_heading_without_text_of_its_own_goes_with_its_subsection(chunk):
    (c,) = chunk("# A\n\n## B\n\ntext\n")
    assert c.title_path == ("A", "B")
    assert c.text == "# A\n\n## B\n\ntext"


def test_an_empty_section_is_a_chunk(chunk):
    assert [c.text for c in chunk("# A\n## B\n## C\ntext\n")] == ["# A\n## B", "## C\ntext"]


def test_only_headings(chunk):
    assert [c.text for c in chunk("# A\n# B\n# C\n")] == ["# A", "# B", "# C"]


@pytest.mark.parametrize("fence", ["```", "~~~", "`````"])
def test_comments_in_a_fence_are_not_headings(chunk, fence):
    (c,) = chunk(f"# A\n\n{fence}sh\n# not a heading\nls\n\n## nor this\n{fence}\n\ntext\n")
    assert c.title_path == ("A",)


def test_a_tilde_fence_is_not_closed_by_backticks(chunk):
    (c,) = chunk("~~~\n```\n# no heading\n~~~\n")
    assert c.title_path == ()


def test_an_unclosed_fence_runs_to_the_end(chunk):
    (c,) = chunk("# A\n\n```\n# no heading\n")
    assert c.title_path == ("A",)


@pytest.mark.parametrize("block", ["```\n" + "x y\n" * 12 + "```", "| a | b |\n|---|---|\n" + "| c | d |\n" * 4])
def test_a_fence_or_table_that_fits_is_not_cut(chunk, block):
    text = "# A\n\n" + "Some words here. " * 5 + "\n\n" + block + "\n\nAnd more words.\n"
    assert sum(block.strip() in c.text for c in chunk(text)) == 1


def test_a_fence_that_is_too_long_is_cut_between_lines(chunk):
    chunks = chunk("```\n" + "one two three\n" * 30 + "```\n")
    assert all(c.text.splitlines()[-1] in ("one two three", "```") for c in chunks)


def test_nested_lists_are_cut_between_outer_items(chunk):
    text = "".join(f"- item {i} has words\n  - nested one two\n  - nested three four\n" for i in range(6))
    chunks = chunk(text)
    assert all(c.text.startswith("- item") for c in chunks)


def test_front_matter_is_no_heading(chunk):
    chunks = chunk("---\ntitle: x\n# comment: y\n---\n\n# A\n\ntext\n")
    assert [c.title_path for c in chunks] == [(), ("A",)]


def test_comments_and_pre_hold_no_headings(chunk):
    (c,) = chunk("<!--\n# no\n-->\n\n<pre>\n\n# no\n</pre>\n")
    assert c.title_path == ()


def test_crlf_files_keep_their_bytes(chunk):
    chunks = chunk(b"# A\r\n\r\ntext one\r\n\r\nB\r\n---\r\n\r\n```\r\n# x\r\n```\r\n")
    assert [c.title_path for c in chunks] == [("A",), ("A", "B")]
    assert [(c.start_line, c.end_line) for c in chunks] == [(1, 3), (5, 10)]


def test_a_byte_order_mark_is_no_text(chunk):
    (c,) = chunk(b"\xef\xbb\xbf# A\n\ntext\n")
    assert (c.title_path, c.start_byte, c.text) == (("A",), 3, "# A\n\ntext")


def test_one_line_of_100_000_chars(chunk):
    chunks = chunk("# A\n" + "word, " * 17_000)
    assert len(chunks) < 700


def test_a_small_rest_is_not_left_alone(chunk):
    chunks = chunk("One two three four five. " * 6 + "Six words.")
    assert min(len(c.text.split()) for c in chunks) > 7


def test_a_heading_that_is_itself_too_long_is_cut(chunk):
    assert chunk("# " + "word " * 100 + "\n\ntext\n")
