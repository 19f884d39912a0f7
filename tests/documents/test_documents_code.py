from __future__ import annotations

from ctxkit.documents import Chunker, load

SOURCE = '''"""Module words."""

import os

LIMIT = 3


# about f
@decorator
def f(x):
    return x


class Thing:
    """A thing."""

    size = 1

    def grow(self):
        return self

    @property
    def half(self):
        return 0.5


if LIMIT:

    def g():
        pass
'''


def chunk(path, count, limit=200):
    (document,) = load(path)
    return Chunker(count, limit).chunks(document)


def test_python_definitions_give_the_path(write, count_words):
    chunks = chunk(write("m.py", SOURCE), count_words)
    titles = [(c.title_path, c.start_line, c.end_line) for c in chunks]
    assert titles == [
        ((), 1, 5),
        (("f",), 8, 11),
        (("Thing",), 14, 17),
        (("Thing", "grow"), 19, 20),
        (("Thing", "half"), 22, 24),
        ((), 27, 27),
        (("g",), 29, 30),
    ]


def test_decorators_and_comments_above_belong_to_the_function(write, count_words):
    chunks = chunk(write("m.py", SOURCE), count_words)
    assert chunks[1].text.startswith("# about f\n@decorator\ndef f")


def test_a_method_keeps_its_indentation(write, count_words):
    chunks = chunk(write("m.py", SOURCE), count_words)
    assert chunks[3].text == "    def grow(self):\n        return self"


def test_a_class_line_goes_with_its_first_method(write, count_words):
    chunks = chunk(
        write("m.py", "class A:\n    def f(self):\n        pass\n\n    def g(self):\n        pass\n"), count_words
    )
    assert [(c.title_path, c.start_line) for c in chunks] == [(("A", "f"), 1), (("A", "g"), 5)]


def test_a_long_function_is_cut_at_blank_lines_then_statements(write, count_words):
    body = "".join(f"    if a{i}:\n        b = {i}\n        c = {i}\n" for i in range(20))
    chunks = chunk(write("m.py", f"def f():\n{body}"), count_words, 30)
    assert {c.title_path for c in chunks} == {("f",)}
    assert all(c.text.lstrip().startswith(("if", "def")) for c in chunks)


def test_python_that_does_not_parse_is_still_read(write, count_words, assert_covered):
    path = write("m.py", "def f(:\n    x\n\n    y\n\ndef g():\n    z\n")
    (document,) = load(path)
    chunks = Chunker(count_words, 5).chunks(document)
    assert_covered(document, chunks)
    assert [c.start_line for c in chunks] == [1, 6]


def test_other_languages_are_cut_at_top_level_definitions(write, count_words):
    text = "".join(f"// about {n}\nfunction {n}() {{\n  let a;\n\n  return a;\n}}\n\n" for n in "abcd")
    chunks = chunk(write("m.js", text), count_words, 15)
    assert [c.text.split("\n")[0] for c in chunks] == [f"// about {n}" for n in "abcd"]


def test_crlf_python_has_right_lines(write, count_words):
    chunks = chunk(write("m.py", SOURCE.replace("\n", "\r\n")), count_words)
    assert [c.start_line for c in chunks] == [1, 8, 14, 19, 22, 27, 29]
