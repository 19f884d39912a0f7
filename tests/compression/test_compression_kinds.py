"""Logs, code and tables: what each kind of text keeps."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable

from ctxkit.compression import ExtractiveCompressor, StructuralCompressor
from ctxkit.context import Level, passage
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest

Requests = Callable[..., LevelRequest]
Groups = Callable[..., Group]

PYTHON = '''import os
from pathlib import Path


class Reader:
    """Reads files.

    With many words about it.
    """

    def read(
        self,
        path: Path,
    ) -> str:
        """One file."""
        text = path.read_text()
        for line in text.splitlines():
            if line.startswith("#"):
                continue
        return text


@staticmethod
def main() -> None:
    reader = Reader()
    for name in os.listdir("."):
        reader.read(Path(name))
'''

GO = """package main

import "fmt"

// Server answers.
type Server struct {
\tName string
}

func (s *Server) Run(port int) error {
\tfor i := 0; i < port; i++ {
\t\tfmt.Println(i, s.Name)
\t\tfmt.Println(i * 2, s.Name)
\t}
\treturn nil
}

func main() {
\ts := Server{Name: "x"}
\tif err := s.Run(80); err != nil {
\t\tfmt.Println("it has failed", err)
\t}
}
"""


def first_level(text: str, request: LevelRequest, group_of: Groups) -> Level:
    return next(StructuralCompressor().levels(group_of(passage(text)), request))


def test_a_log_says_what_repeats_once(request_of: Requests, group_of: Groups) -> None:
    lines = [f"2024-05-01 10:00:{i % 60:02d} INFO request {i} served in {i * 3} ms" for i in range(80)]
    lines[40] = "2024-05-01 10:00:40 ERROR disk /dev/sda failed"
    lines[41] = "java.lang.IllegalStateException: no disk"
    level = first_level("\n".join(lines), request_of(""), group_of)
    kept = level.parts[0].content.split("\n")
    said = [f"{i} {i * 3} ms" for i in range(80)]
    assert kept == [lines[0], *said[1:40], lines[40], lines[41], *said[42:80]]
    assert "log" in level.method
    assert level.utility > 0.5
    assert level.resize is not None
    made = level.resize(300)
    assert made is not None
    assert "similar lines)" in made.parts[0].content
    assert lines[40] in made.parts[0].content


def test_every_error_of_a_log_stays(request_of: Requests, group_of: Groups) -> None:
    lines = [f"10:00:{i % 60:02d} {'ERROR' if i % 10 == 0 else 'DEBUG'} step {i} done" for i in range(100)]
    kept = first_level("\n".join(lines), request_of(""), group_of).parts[0].content
    assert all(line in kept for line in lines if "ERROR" in line)


def test_python_becomes_its_skeleton(request_of: Requests, group_of: Groups) -> None:
    level = first_level(PYTHON, request_of(""), group_of)
    text = level.parts[0].content
    assert "code" in level.method
    for line in (
        "import os",
        "class Reader:",
        '"""Reads files.',
        "    def read(",
        "        path: Path,",
        "    ) -> str:",
    ):
        assert line in text
    assert "@staticmethod\ndef main() -> None:\n    ...  # lines 25-27" in text
    assert "splitlines" not in text
    assert "        ...  # lines 16-20" in text


def test_other_languages_keep_their_signatures(request_of: Requests, group_of: Groups) -> None:
    text = first_level(GO, request_of(""), group_of).parts[0].content
    for line in (
        'import "fmt"',
        "// Server answers.",
        "type Server struct {",
        "func (s *Server) Run(port int) error {",
    ):
        assert line in text
    assert "it has failed" not in text
    assert "...  // lines " in text


def test_broken_python_is_no_error(request_of: Requests, group_of: Groups) -> None:
    for text in (PYTHON + "def broken(:\n", PYTHON + "\0", PYTHON.replace("\n", "\r"), PYTHON + "x = '\ud800'\n"):
        for level in StructuralCompressor().levels(group_of(passage(text)), request_of()):
            assert level.parts[0].content
    assert ast.parse(PYTHON)


def test_a_table_keeps_header_ends_and_what_is_asked(request_of: Requests, group_of: Groups) -> None:
    rows = [f'{i},"user {i}, esq.",Town{i % 7}' for i in range(300)]
    rows[123] = '123,"Ada\nLovelace",London'
    group = group_of(passage("id,name,town\n" + "\n".join(rows) + "\n"))
    *larger, smallest = StructuralCompressor().levels(group, request_of("Who lives in London?"))
    for level in larger:
        kept = level.parts[0].content
        assert kept.startswith("id,name,town\n")
        assert rows[123] in kept
    assert rows[0] in larger[-2].parts[0].content
    assert smallest.parts[0].content == "id,name,town\n… 300 more rows\n"


def test_a_markdown_table_stays_one(request_of: Requests, group_of: Groups) -> None:
    text = "# Users\n\n| id | name |\n|---|---|\n" + "".join(f"| {i} | user {i} |\n" for i in range(120))
    level = first_level(text, request_of(""), group_of)
    kept = level.parts[0].content
    assert kept.startswith("# Users\n\n| id | name |\n|---|---|\n| 0 | user 0 |\n")
    assert "\n| … " in kept
    assert kept.endswith("| 119 | user 119 |\n")
    assert "table" in level.method


def test_json_lines_stay_json_lines(request_of: Requests, group_of: Groups) -> None:
    text = "\n".join(json.dumps({"id": i, "event": f"click {i}"}) for i in range(120))
    for compressor in (StructuralCompressor(), ExtractiveCompressor()):
        for level in compressor.levels(group_of(passage(text)), request_of()):
            kept = [json.loads(line) for line in level.parts[0].content.splitlines()]
            marks = [str(row.get("…")) if isinstance(row, dict) else "" for row in kept]
            missing = sum(int(mark.split()[0]) for mark in marks if "more row" in mark)
            assert missing + sum("row" not in mark for mark in marks) == 120


def test_plain_text_keeps_head_and_tail(request_of: Requests, group_of: Groups) -> None:
    text = "\n".join(f"{'abcdefghij'[i % 10] * (i % 17 + 3)} some words" for i in range(200))
    level = list(StructuralCompressor().levels(group_of(passage(text)), request_of("")))[2]
    head, _, tail = level.parts[0].content.partition("[… ")
    tail = tail.split("]\n")[1]
    assert head
    assert tail
    assert text.startswith(head)
    assert text.endswith(tail)
    (handle,) = level.handles
    assert (handle.start_line, handle.end_line) == (head.count("\n") + 1, 200 - len(tail.split("\n")))
