"""JSON: minified, then sampled. Stays valid; what vanished is said inside it; keys, numbers, ids and paths stay whole.

A sample keeps the head and tail of arrays and the items that match the question, marks missing items and fields by
{"…": "37 more items"}, and ends clipped strings in "… [1,204 chars omitted]".
"""

from __future__ import annotations

import json
import re
from functools import cached_property

from ctxkit.compression.counted import SURROGATE
from ctxkit.compression.cut import Cut, Fragment, Reader, Source
from ctxkit.compression.json_rank import WHOLE, Atom, ranked_atoms
from ctxkit.compression.json_tree import Node, parse
from ctxkit.compression.ranked import CONCAVITY, RankedSource
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter

MARK = "…"
_LOSSLESS = 0.99
_MARKER_CHARS = 24
_STRING = json.JSONDecoder().decode


def json_reader(*, lean: float, fidelity: float, keep_fields: bool = False) -> Reader:
    """Reads JSON texts.

    lean: from 0 to 1, how much more the question counts than the place in an array.
    fidelity: value of a sample of everything, in [0, 1]. keep_fields: the fields of the outermost object always stay.
    """

    def read(text: str, request: LevelRequest) -> Source | None:
        nodes = parse(text)
        if nodes is None:
            return None
        atoms, least = ranked_atoms(text, nodes, request.question, lean=lean, keep_fields=keep_fields)
        return JsonSource(text, nodes, atoms, request.counter, fidelity=fidelity, least=least)

    return read


class JsonSource(RankedSource):
    """A JSON text that can be minified and sampled."""

    kind = "json"

    def __init__(
        self, text: str, nodes: list[Node], atoms: list[Atom], counter: Counter, *, fidelity: float, least: int
    ) -> None:
        self._text = text
        self._nodes = nodes
        self._atoms = atoms
        self.counter = counter
        super().__init__(
            counter,
            self._estimates(),
            (atom.score * atom.chars for atom in atoms),
            fidelity=fidelity,
            least=least,
            natural_prefix=len(atoms),
        )

    @cached_property
    def ceiling(self) -> int:
        return min(self.counter.count(self._text), self.counter.count(self._minified))

    @cached_property
    def _minified(self) -> str:
        return "".join(fragment.text for fragment in self.fragments(len(self._atoms)))

    def at(self, tokens: int) -> Cut | None:
        if tokens >= self.counter.count(self._minified):
            return self.prefix(self.most)
        return super().at(tokens)

    def share(self, count: int) -> float:
        whole = count == len(self._atoms)
        return (_LOSSLESS / self.fidelity) ** (1 / CONCAVITY) if whole else super().share(count)

    def fragments(self, count: int) -> list[Fragment]:
        clipped: dict[int, int] = {}
        for atom in self._atoms[:count]:
            clipped[atom.node] = max(clipped.get(atom.node, 0), atom.clip)
        return _Writer(self._text, self._nodes).write(clipped)

    def _estimates(self) -> list[float]:
        """Estimated tokens of each prefix, by characters."""
        chars = [0.0]
        missing = [node.children for node in self._nodes]
        for atom in self._atoms:
            node = self._nodes[atom.node]
            added = atom.chars + (_MARKER_CHARS if atom.opens_gap else 0) - (_MARKER_CHARS if atom.closes_gap else 0)
            if not atom.extends and node.parent >= 0:
                missing[node.parent] -= 1
                added -= _MARKER_CHARS if missing[node.parent] == 0 else 0
            chars.append(chars[-1] + added)
        rate = self.counter.count(self._minified) / max(len(self._minified), 1)
        return [max(0.0, rate * n) for n in chars]


class _Writer:
    """Writes chosen nodes as JSON."""

    def __init__(self, text: str, nodes: list[Node]) -> None:
        self.text = text
        self.nodes = nodes
        self.mark = _unused_mark(text)
        self.out: list[Fragment] = []
        self.open: list[list[int]] = []  # [node, ordinal of the next child, missing fields, members written]

    def write(self, clipped: dict[int, int]) -> list[Fragment]:
        """clipped: chars that a string keeps, by node; WHOLE for all of the value."""
        for index in sorted(clipped):
            node = self.nodes[index]
            while self.open and self.open[-1][0] != node.parent:
                self._close()
            self._enter(node)
            if node.key is not None:
                self._copy(*node.key)
                self._mark(":")
            self._value(index, node, clipped[index])
        while self.open:
            self._close()
        return self.out

    def _enter(self, node: Node) -> None:
        if not self.open:
            return
        frame = self.open[-1]
        missing = node.ordinal - frame[1]
        frame[1] = node.ordinal + 1
        if missing and node.key is None:
            self._omitted(frame, missing)
        elif missing:
            frame[2] += missing
        self._comma(frame)

    def _value(self, index: int, node: Node, clip: int) -> None:
        if node.is_container:
            self._copy(node.start, node.start + 1)
            self.open.append([index, 0, 0, 0])
        elif clip < WHOLE:
            self._mark(clipped_string(self.text[node.start : node.end], clip))
        else:
            self._copy(node.start, node.end)

    def _close(self) -> None:
        frame = self.open.pop()
        node = self.nodes[frame[0]]
        missing = node.children - frame[1] + frame[2]
        if missing:
            self._omitted(frame, missing)
        self._copy(node.end - 1, node.end)

    def _omitted(self, frame: list[int], missing: int) -> None:
        self._comma(frame)
        if self.nodes[frame[0]].opener == "[":
            self._mark(f'{{"{self.mark}":"{missing:,} more item{"s" * (missing > 1)}"}}')
        else:
            self._mark(f'"{self.mark}":"{missing:,} more field{"s" * (missing > 1)}"')

    def _comma(self, frame: list[int]) -> None:
        if frame[3]:
            self._mark(",")
        frame[3] += 1

    def _copy(self, start: int, end: int) -> None:
        self.out.append(Fragment(self.text[start:end], start))

    def _mark(self, text: str) -> None:
        self.out.append(Fragment(text, None))


def _unused_mark(text: str) -> str:
    """A key for missing fields that no object of the text has."""
    runs = re.findall(rf"(?:{MARK}|\\u2026)+", text)
    return MARK * (1 + max((len(run.replace("\\u2026", MARK)) for run in runs), default=0))


def clipped_string(literal: str, keep: int) -> str:
    """A JSON string literal with the first `keep` chars of its value, and how many are missing."""
    value = _STRING(literal)
    return quoted(f"{value[:keep]}{MARK} [{len(value) - keep:,} chars omitted]")


def quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=SURROGATE.search(value) is not None)
