"""Source code: a block per top-level definition; for Python, classes and functions become the path. Exact slices."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from ctxkit.documents.decode import decode
from ctxkit.documents.document import Block, Document
from ctxkit.documents.lines import line_spans, paragraphs

PYTHON = (".py", ".pyi", ".pyw")
SUFFIXES = (
    *PYTHON,
    *(".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte", ".css", ".scss", ".less"),
    *(".go", ".rs", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cu", ".cuh", ".m", ".mm", ".zig"),
    *(".java", ".kt", ".kts", ".scala", ".groovy", ".cs", ".fs", ".swift", ".dart"),
    *(".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".ex", ".exs", ".erl", ".hs", ".ml", ".clj", ".el"),
    *(".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".sql", ".graphql", ".proto", ".tf", ".cmake"),
    *(".toml", ".yaml", ".yml", ".dockerfile", ".mk", ".nix"),
)

_CONTINUES = re.compile(r"\s|[)\]}]|(?:else|elif|except|finally|catch|end|fi|done|esac)\b")
_BARE_CLASS = re.compile(r"(?:[@#][^\n]*\n\s*)*class\b[^\n]*:")

Owner = tuple[tuple[str, ...], int]
"""The path of a line's definition, and a number that tells neighbours of the same name apart."""


def load(data: bytes, source: str) -> list[Document]:
    """One document. A Python file that does not parse is read like any other language. Raises DocumentError."""
    decoded = decode(data, source)
    blocks = None
    if PurePosixPath(source).suffix.lower() in PYTHON:
        blocks = _python_blocks(decoded.text)
    if blocks is None:
        blocks = list(_top_level_blocks(decoded.text))
    return [Document(source, decoded.text, tuple(blocks), decoded.origin())]


def _top_level_blocks(text: str) -> Iterator[Block]:
    """Runs of lines from one line at the margin that follows a blank line to the next such line."""
    start = end = None
    for first, last in paragraphs(text):
        if start is not None and end is not None and not _CONTINUES.match(text, first):
            yield Block(start, end, "code")
            start = None
        start, end = first if start is None else start, last
    if start is not None and end is not None:
        yield Block(start, end, "code")


def _python_blocks(text: str) -> list[Block] | None:
    """Blocks by class and function, None where the text is not Python."""
    tree = _parse(text)
    if tree is None:
        return None
    lines = line_spans(text)
    owners: list[Owner] = [((), 0)] * len(lines)
    _paint(tree.body, (), owners, [text[a:b] for a, b in lines])
    return [block for first, after in _runs(owners) for block in _run_blocks(text, lines, owners, first, after)]


def _parse(text: str) -> ast.Module | None:
    if "\r" in text.replace("\r\n", ""):  # ast counts a lone carriage return as a line end, we do not
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _paint(body: Sequence[ast.stmt], path: tuple[str, ...], owners: list[Owner], lines: Sequence[str]) -> None:
    """Gives each line of each definition in `body` its path; members of a class are painted over their class."""
    previous = 0
    for node in body:
        first, after = _first_line(node, lines, previous) - 1, min(node.end_lineno or node.lineno, len(lines))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = (*path, node.name)
            owners[first:after] = [(inner, first + 1)] * (after - first)
            if isinstance(node, ast.ClassDef):
                _paint(node.body, inner, owners, lines)
        else:
            for part in ("body", "orelse", "finalbody"):
                nested = getattr(node, part, [])
                _paint(nested if isinstance(nested, list) else [], path, owners, lines)
        previous = after


def _first_line(node: ast.stmt, lines: Sequence[str], previous: int) -> int:
    """1-based line where a definition starts: decorators and the comment lines right above are part of it."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    while first - 1 > previous and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first


def _runs(owners: Sequence[Owner]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of neighbouring lines with one owner."""
    first = 0
    for i in range(1, len(owners) + 1):
        if i == len(owners) or owners[i] != owners[first]:
            yield first, i
            first = i


def _run_blocks(
    text: str, lines: Sequence[tuple[int, int]], owners: Sequence[Owner], first: int, after: int
) -> Iterator[Block]:
    """A definition is one block; what stands between definitions is cut at blank lines, so that it can be packed."""
    path = owners[first][0]
    start, end = lines[first][0], lines[after - 1][1]
    if path:
        bare = _BARE_CLASS.fullmatch(text[start:end].strip())  # a class line above its first method acts as a heading
        if not text[start:end].isspace():
            yield Block(start, end, "heading" if bare else "code", path)
        return
    for begin, stop in paragraphs(text, start, end):
        yield Block(begin, stop, "code", path)
