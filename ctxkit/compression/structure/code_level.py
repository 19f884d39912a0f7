"""Code: a skeleton of imports, signatures and first docstring lines; bodies become `...` with their line range."""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from ctxkit.compression.sources.cut import Source
from ctxkit.compression.sources.pieces import Gap, Pieces, PieceSource, slices
from ctxkit.compression.text.score import relevance
from ctxkit.compression.text.segment import line_bounds
from ctxkit.context.level import LevelRequest

FIDELITY = 0.85
_LEAST_LINES = 6
_SPARE = 0.4
_BODY = 0.08
_MOST_PARSED_CHARS = 500_000

_SIGNATURE = re.compile(
    r"(?P<indent>\s*)(?:@\w|(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub"
    r"(?:\(\w+\))?|unsafe|extern|inline|virtual|override|sealed|open|data|const)\s+)*"
    r"(?:(?:def|class|func|fn|fun|function|struct|enum|interface|impl|trait|type|module|namespace|package|import|from"
    r"|use|using|require|include|record|object|protocol|extension|typedef)\b(?!\s*[:,.)])|#\s*(?:include|define)\b"
    r"|(?:const|let|var)\s+\w+\s*=\s*(?:async\s*)?(?:function\b|\([^)]*\)\s*=>)))"
)
_C_FUNCTION = re.compile(r"[A-Za-z_][\w:<>,*&\s\[\]]*\s[*&]*[\w:~]+\([^;{}]*\)[^;{}]*\{\s*$")
_CODE_END = re.compile(r"[{};:,()\[\]\\]\s*$")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_COMMENT = re.compile(r"\s*(?://|#|/\*|\*|--)")


def read_code(text: str, request: LevelRequest) -> Source | None:
    """Python by its syntax tree, other languages by their indentation and words."""
    bounds = line_bounds(text)
    lines = slices(text, bounds)
    if len(lines) < _LEAST_LINES:
        return None
    scores = _python_scores(text, bounds) or _other_scores(lines)
    if scores is None:
        return None
    asked = relevance(lines, request.question)
    scores = [score + 0.3 * match for score, match in zip(scores, asked, strict=True)]
    comment = "#" if re.search(r"^\s*(?:def|import|from)\s.*[:\w]\s*$", text, re.MULTILINE) else "//"
    pieces = Pieces(text, bounds, scores, _gap(text, comment), "code", FIDELITY, spare=_SPARE)
    return PieceSource(pieces, request.counter)


def _python_scores(text: str, bounds: Sequence[int]) -> list[float] | None:
    """Value per token of each piece; None for what is no Python, or none with a definition in it."""
    tree = _parsed(text)
    if tree is None:
        return None
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    scores = [_BODY] * (len(bounds) - 1)
    found = 0
    for first, last, score in _outline(tree):
        found += 1
        for line in range(first, last + 1):
            piece = min(bisect_left(bounds, starts[line - 1] + 1) - 1, len(scores) - 1)
            scores[piece] = max(scores[piece], score)
    return scores if found else None


def _parsed(text: str) -> ast.Module | None:
    if len(text) > _MOST_PARSED_CHARS or "\r" in text.replace("\r\n", "") or "\f" in text:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    named = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return tree if any(isinstance(node, named) for node in tree.body) else None


def _outline(tree: ast.Module) -> Iterator[tuple[int, int, float]]:
    """(first line, last line, score) of what a skeleton shows; 1-based lines."""
    yield from _docstring(tree)
    waiting: list[tuple[ast.stmt, int]] = [(node, 0) for node in tree.body]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield first, max(node.lineno, node.body[0].lineno - 1), 1.0 - 0.05 * min(depth, 4)
            yield from _docstring(node)
            waiting += [(child, depth + 1) for child in node.body]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node.lineno, node.end_lineno or node.lineno, 0.7
        elif depth == 0 and isinstance(node, ast.Assign | ast.AnnAssign):
            yield node.lineno, node.lineno, 0.5


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[int, int, float]]:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        yield first.lineno, first.lineno, 0.6


def _other_scores(lines: Sequence[str]) -> list[float] | None:
    """Signatures and the comments right above them, of what looks like code."""
    signed = [_signature_score(line) for line in lines]
    if any(_FENCE.match(line) for line in lines):
        return None  # prose that shows code
    ends = sum(1 for line in lines if _CODE_END.search(line))
    if sum(map(bool, signed)) < 2 or ends < 0.3 * len(lines):
        return None
    scores = [score or _BODY for score in signed]
    for i in range(len(lines) - 1):
        if signed[i + 1] and _COMMENT.match(lines[i]):
            scores[i] = max(scores[i], 0.5)
    return scores


def _signature_score(line: str) -> float:
    """0 for a line that is no signature; less for deeper ones."""
    head = line[:400].rstrip("\n ")
    match = _SIGNATURE.match(head)
    if match is not None:
        return max(0.5, 1.0 - 0.02 * len(match["indent"].expandtabs(4)))
    return 0.9 if _C_FUNCTION.match(head) else 0.0


def _gap(text: str, comment: str) -> Gap:
    line_ends = [match.start() for match in re.finditer("\n", text)]

    def gap(start: int, end: int) -> str:
        missing = text[start:end]
        indent = missing[: len(missing) - len(missing.lstrip(" \t"))]
        first = bisect_left(line_ends, start) + 1
        last = first + missing.rstrip("\n").count("\n")
        lines = f"line {first}" if first == last else f"lines {first}-{last}"
        return f"{indent}...  {comment} {lines}" + "\n" * missing.endswith("\n")

    return gap
