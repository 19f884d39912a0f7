"""README and docs are true: their Python runs, their commands succeed, their links lead somewhere.

Each page is run from top to bottom, in one namespace and one temporary working directory (see conftest.py). Pages may
use MODEL_FOLDER without defining it, a folder with a tokenizer and a chat template, without weights; and POSTGRES_URL,
a database with pgvector (a page stops there where there is none). The working directory holds README.md, docs/ and an
index of both in .ctxkit; http://127.0.0.1:8000/v1 is a server.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ctxkit.cli import app
from ctxkit.errors import MissingExtra

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})\s*([\w+-]*)")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|^\s*\[[^\]]+\]:\s*(\S+)|(?:src|href)=[\"']([^\"']+)", re.MULTILINE)
_CODE_SPAN = re.compile(r"`[^`\n]*`")
_TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)
_SHELL = frozenset({"|", ">", ">>", "<", "&&", ";"})
_NOT_IN_SETUP = frozenset(  # extras that `make setup` leaves out
    {
        "haystack",
        "lancedb",
        "llama-index",
        "mcp",
        "openai-agents",
        "pgvector",
        "pydantic-ai",
        "qdrant",
        "ray",
        "structured",
    }
)
_UNRUN = frozenset({"git", "cd", "pip", "make", "python", ".venv/bin/python", "source"})


@dataclass(frozen=True)
class Block:
    """A fenced block of `length` lines. `line` is the 1-based line of the first."""

    language: str
    text: str
    line: int
    length: int

    def commands(self) -> Iterator[tuple[int, list[str]]]:
        """(line, words) of each line that starts with `$ `; comments, pipes and what follows them cut off."""
        for number, line in enumerate(self.text.splitlines(), self.line):
            if line.startswith("$ "):
                lexer = shlex.shlex(line[2:], posix=True, punctuation_chars="|><&;")
                lexer.wordchars += "".join(chr(code) for code in range(33, 127) if chr(code) not in "\"'#|><&;\\")
                words = list(lexer)
                yield number, words[: next((i for i, word in enumerate(words) if word in _SHELL), len(words))]

    @property
    def needs_model(self) -> bool:
        if self.language == "python":
            return "LocalModel.load(" in self.text or "prepare(" in self.text
        return any(_asks_for_model(words[1:]) for _, words in self.commands() if words[:1] == ["ctxkit"])


def _asks_for_model(words: list[str]) -> bool:
    return (
        (words[:1] == ["ask"] and "--base-url" not in words) or words[:2] == ["models", "prepare"] or "--model" in words
    )


def blocks(page: Path) -> list[Block]:
    """The Python and console blocks of a page."""
    return [block for block in fenced(page) if block.language in ("python", "console")]


@cache
def fenced(page: Path) -> tuple[Block, ...]:
    found: list[Block] = []
    opened: tuple[str, str, int] | None = None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        match = _FENCE.match(line)
        if opened is None and match:
            opened = (match[1], match[2], number + 1)
        elif opened and match and match[1].startswith(opened[0]) and not match[2]:
            mark, language, first = opened
            inner = lines[first - 1 : number - 1]
            found.append(Block(language, "\n".join(inner), first, len(inner)))
            opened = None
    assert opened is None, f"{page.name}:{opened[2] - 1}: a fence that is never closed" if opened else ""
    return tuple(found)


def outside_fences(page: Path) -> str:
    """The page without its fenced blocks."""
    lines: list[str | None] = list(page.read_text(encoding="utf-8").splitlines())
    for block in fenced(page):
        first = block.line - 2  # the fence itself
        lines[first : first + block.length + 2] = [None] * (block.length + 2)
    return "\n".join(line for line in lines if line is not None)


def _pages_with(language: str) -> list[Any]:
    found = [page for page in PAGES if any(block.language == language for block in blocks(page))]
    return [pytest.param(page, id=page.name) for page in found]


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES if blocks(page)])
def test_a_page_runs_from_top_to_bottom(
    page: Path, workspace: Path, model_is_prepared: bool, request: pytest.FixtureRequest
) -> None:
    names: dict[str, Any] = {"__name__": "page", "MODEL_FOLDER": workspace / "model"}
    for block in blocks(page):
        if block.needs_model and not model_is_prepared:
            pytest.skip(f"{page.name}:{block.line} needs the local model: ctxkit models prepare smollm2-135m-instruct")
        if block.language == "python":
            if "POSTGRES_URL" in block.text:
                names["POSTGRES_URL"] = request.getfixturevalue("pgvector_url")
            padded = "\n" * (block.line - 1) + block.text  # tracebacks name the line of the page
            try:
                exec(compile(padded, str(page), "exec"), names)
            except MissingExtra as error:
                if error.extra not in _NOT_IN_SETUP:
                    raise
                pytest.skip(f"{page.name}:{block.line} needs the extra {error.extra}")
        else:
            _run_commands(page, block)


def _run_commands(page: Path, block: Block) -> None:
    for line, words in block.commands():
        if words[0] != "ctxkit":
            continue
        result = CliRunner().invoke(app, words[1:])
        said = f"{result.output}\n{result.exception!r}"
        assert result.exit_code == 0, f"{page.name}:{line}: exit code {result.exit_code}\n{said}"


@pytest.mark.parametrize("page", _pages_with("console"))
def test_commands_that_are_not_ours_name_what_exists(page: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    for block in blocks(page):
        for line, words in block.commands() if block.language == "console" else ():
            where = f"{page.name}:{line}"
            assert words[0] == "ctxkit" or words[0] in _UNRUN, f"{where}: nothing checks `{words[0]}`"
            if words[0] == "make":
                asked = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
                assert asked <= targets, f"{where}: no such target: {', '.join(asked - targets)}"
            if words[0].endswith("python"):
                scripts = [word for word in words[1:] if word.endswith(".py")]
                assert all((ROOT / script).is_file() for script in scripts), f"{where}: no such file in {scripts}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    wrong = []
    for match in _LINK.finditer(_CODE_SPAN.sub("", outside_fences(page))):
        target = next(group for group in match.groups() if group)
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or not file.is_relative_to(ROOT):
            wrong.append(f"{target}: no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            wrong.append(f"{target}: no such heading")
    assert not wrong


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ +(.+?)\s*$", outside_fences(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
