from __future__ import annotations

import json

import pytest

from ctxkit.documents import Chunker, load
from ctxkit.errors import CtxkitError, DocumentError


def reason(path, **options) -> str:
    with pytest.raises(DocumentError) as caught:
        load(path, path.parent, **options)
    assert caught.value.path == path.name
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_a_source_is_named_from_the_root(write, tmp_path):
    (document,) = load(write("a/b.txt", "x"), tmp_path)
    assert document.source == "a/b.txt"
    assert load(tmp_path / "a" / "b.txt")[0].source == "b.txt"


def test_an_unknown_suffix_is_text(write):
    assert load(write("Makefile", "all:\n\techo\n"))[0].text == "all:\n\techo\n"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.html", "a.jsonl", "a.bin"])
@pytest.mark.parametrize("content", [b"", b" \n\t\r\n "])
def test_an_empty_file_is_refused(write, name, content):
    assert reason(write(name, content)).startswith("empty")


def test_bytes_that_are_not_utf8_are_refused_with_their_offset(write):
    assert reason(write("a.md", b"# A\ncaf\xe9 au lait")) == "not UTF-8 text: byte 0xe9 at byte offset 7"


def test_nul_is_refused_as_binary(write):
    assert reason(write("a.txt", b"abc\0def")).startswith("binary file")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_files_with_a_byte_order_mark_are_decoded(write, count_words, encoding):
    data = "erste Zeile\n\nüber 👍 alles\n".encode(encoding)
    (document,) = load(write("a.txt", data))
    first, second = Chunker(count_words, 3).chunks(document)
    codec = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]
    assert data[second.start_byte : second.end_byte].decode(codec) == second.text == "über 👍 alles"
    assert (first.start_line, second.start_line) == (1, 3)


def test_a_missing_file_is_refused(tmp_path):
    assert reason(tmp_path / "no.txt") == "no such file"
    (tmp_path / "folder.txt").mkdir()
    assert reason(tmp_path / "folder.txt") == "not a regular file"


def test_a_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    monkeypatch.setattr(type(path), "read_bytes", lambda self: pytest.fail("was read"))
    assert reason(path) == "too large: 200,000,000 bytes, the limit is 50,000,000 bytes"


def test_an_unreadable_file_is_refused(write, monkeypatch):
    path = write("a.txt", "x")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", denied)
    assert reason(path) == "cannot be read: permission denied"


def test_text_is_paragraphs(write, count_words):
    (document,) = load(write("a.txt", "Some text.\n\nMore text\nhere.\n"))
    assert [c.text for c in Chunker(count_words, 3).chunks(document)] == ["Some text.", "More text\nhere."]


def test_rst_titles_give_the_path(write, count_words):
    text = "=====\nTitle\n=====\n\nIntro.\n\nPart\n----\nText\n\n==== ====\na    b\n==== ====\n\nOther\n-----\n\nEnd.\n"
    chunks = Chunker(count_words).chunks(load(write("a.rst", text))[0])
    assert [(c.title_path, c.start_line) for c in chunks] == [
        (("Title",), 1),
        (("Title", "Part"), 7),
        (("Title", "Other"), 15),
    ]
    assert chunks[1].text.startswith("Part\n----\nText")


def test_json_lines_give_a_document_per_record(write, count_words):
    records = [
        {"_id": "d1", "title": "First", "text": "one two.\n\nthree"},
        {"id": 7, "content": "four", "year": 1999, "metadata": {"lang": "en"}, "list": [1]},
        {"body": "four"},
        {"_id": "d1", "title": "First", "text": "one two.\n\nthree"},
        {"other": "x"},
    ]
    data = "".join(json.dumps(r) + "\n" for r in records)
    documents = load(write("corpus.jsonl", "\n" + data))
    chunks = list(Chunker(count_words).chunk_all(documents))
    assert [c.text for c in chunks] == ["one two.\n\nthree", "four", "four", "one two.\n\nthree", '{"other": "x"}']
    assert [(c.start_line, c.end_line) for c in chunks] == [(n, n) for n in range(2, 7)]
    assert chunks[0].title_path == ("First",)
    assert chunks[0].metadata == {"id": "d1"}
    assert chunks[1].metadata == {"id": 7, "year": 1999, "lang": "en"}
    assert json.loads(("\n" + data).encode()[chunks[1].start_byte : chunks[1].end_byte]) == records[1]
    assert len({c.id for c in chunks}) == 5


def test_broken_json_lines_are_skipped_and_noted(write):
    documents = load(write("c.jsonl", '{"text": "a"}\n{"text": \n'))
    assert [document.notes for document in documents] == [("not JSON in 1 line(s): 2",)]
    assert reason(write("d.jsonl", "{\n[\n")) == "not JSON in 2 line(s): 1, 2"


def test_a_pdf_knows_its_pages_and_lines(write, make_pdf, count_words):
    pytest.importorskip("pypdfium2")
    path = write("p.pdf", make_pdf([["First page here.", "Second line."], ["Other page.", "Last words."]]))
    (document,) = load(path)
    chunks = Chunker(count_words, 50).chunks(document)
    assert [(c.page, c.start_line, c.end_line) for c in chunks] == [(1, 1, 2), (2, 1, 2)]
    assert [c.text for c in chunks] == ["First page here.\nSecond line.", "Other page.\nLast words."]
    assert chunks[1].location == "p.pdf p.2:1-2"
    assert [c.start_line for c in Chunker(count_words, 2).chunks(document) if c.page == 2] == [1, 2]


def test_a_broken_pdf_is_refused(write, make_pdf):
    pytest.importorskip("pypdfium2")
    assert reason(write("p.pdf", b"%PDF-1.4\nnothing")).startswith("broken PDF")
    assert reason(write("q.pdf", make_pdf([[], []]))).startswith("no text in 2 page(s)")


def test_an_encrypted_pdf_is_refused(write, make_pdf):
    pytest.importorskip("pypdfium2")
    key = b"0" * 32
    encrypt = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O (%b) /U (%b) /P -4 >> /ID [<00> <00>]" % (key, key)
    data = make_pdf([["Secret."]]).replace(b"/Root 1 0 R", b"/Root 1 0 R " + encrypt)
    assert reason(write("p.pdf", data)) == "encrypted PDF: a password is needed"


def test_pdf_control_characters_are_cleaned():
    from ctxkit.documents.loaders.pdf import _clean

    assert _clean("exam\ufffe\r\nple\x02 so\u00adft\x0cpage\x00") == "exam-\nple- soft\npage"


@pytest.mark.parametrize(("module", "name"), [("pypdfium2", "a.pdf"), ("trafilatura", "a.html")])
def test_a_missing_package_is_named(write, monkeypatch, module, name):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CtxkitError, match=rf"`{module}` is needed.*\[retrieval\]"):
        load(write(name, "<p>hello</p>"))
