"""Writes chosen values and words of a JSON text as JSON: slices of the text, and markers where something is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ctxkit.compression.sources.counted import SURROGATE
from ctxkit.compression.sources.cut import Fragment
from ctxkit.compression.structure.json_rank import Tree
from ctxkit.compression.structure.json_tree import Node

MARK = "…"


@dataclass(slots=True)
class _Frame:
    """An open container. at: ordinal of the next child. missing: fields left out so far. members: written so far.

    is_row: an object that is written as an array. is_explained: rows of this array have been announced.
    """

    node: int
    is_row: bool
    at: int = 0
    missing: int = 0
    members: int = 0
    is_explained: bool = False


class JsonWriter:
    """Writes some of the nodes. lines: the outermost array is one item on each line, without brackets."""

    def __init__(self, tree: Tree, *, lines: bool = False) -> None:
        self.tree = tree
        self.lines = lines
        self.mark = _unused_mark(tree.text)
        self.out: list[Fragment] = []
        self.open: list[_Frame] = []

    def write(self, kept: Mapping[int, Sequence[int]], keyed: Collection[int]) -> list[Fragment]:
        """kept: the nodes, and the words that strings keep of them. keyed: items of rows that say their keys."""
        self.out, nodes = [], self.tree.nodes
        for index in sorted(kept):
            node = nodes[index]
            while self.open and self.open[-1].node != node.parent:
                self._close()
            self._enter(node, self._is_row(index, keyed))
            if node.key is not None and not self.open[-1].is_row:
                self._copy(*node.key)
                self._mark(":")
            self._value(index, kept[index], keyed)
        while self.open:
            self._close()
        if self.lines and self.tree.text.endswith("\n"):
            self._mark("\n")
        return self.out

    def _is_row(self, index: int, keyed: Collection[int]) -> bool:
        item = self.tree.rows[index]
        return item >= 0 and item not in keyed

    def _enter(self, node: Node, is_row: bool) -> None:
        if not self.open:
            return
        frame = self.open[-1]
        missing = node.ordinal - frame.at
        frame.at = node.ordinal + 1
        if missing and (node.key is None or frame.is_row):
            self._omitted(frame, missing)
        elif missing:
            frame.missing += missing
        if is_row and not frame.is_explained and not any(above.is_row for above in self.open):
            frame.is_explained = True
            self._comma(frame)
            self._mark(f'{{"{self.mark}":"rows: values of the keys above"}}')
        self._comma(frame)

    def _value(self, index: int, words: Sequence[int], keyed: Collection[int]) -> None:
        node = self.tree.nodes[index]
        if node.is_container:
            frame = _Frame(index, self._is_row(index, keyed))
            if frame.is_row:
                self._mark("[")
            elif not self._is_unwritten(index):
                self._copy(node.start, node.start + 1)
            self.open.append(frame)
        elif index in self.tree.strings:
            self.out += self.tree.strings[index].fragments(words)
        else:
            self._copy(node.start, node.end)

    def _close(self) -> None:
        frame = self.open.pop()
        node = self.tree.nodes[frame.node]
        missing = node.children - frame.at + frame.missing
        if missing:
            self._omitted(frame, missing)
        if frame.is_row:
            self._mark("]")
        elif not self._is_unwritten(frame.node):
            self._copy(node.end - 1, node.end)

    def _omitted(self, frame: _Frame, missing: int) -> None:
        self._comma(frame)
        opener = self.tree.nodes[frame.node].opener
        what = ("row" if self._is_unwritten(frame.node) else "item") if opener == "[" else "field"
        field = f'"{self.mark}":"{missing:,} more {what}{"s" * (missing > 1)}"'
        self._mark(f"{{{field}}}" if opener == "[" or frame.is_row else field)

    def _comma(self, frame: _Frame) -> None:
        if frame.members:
            self._mark("\n" if self._is_unwritten(frame.node) else ",")
        frame.members += 1

    def _is_unwritten(self, index: int) -> bool:
        return self.lines and index == 0

    def _copy(self, start: int, end: int) -> None:
        self.out.append(Fragment(self.tree.text[start:end], start))

    def _mark(self, text: str) -> None:
        self.out.append(Fragment(text, None))


def _unused_mark(text: str) -> str:
    """A key for missing fields that no object of the text has."""
    runs = re.findall(rf"(?:{MARK}|\\u2026)+", text)
    return MARK * (1 + max((len(run.replace("\\u2026", MARK)) for run in runs), default=0))


def quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=SURROGATE.search(value) is not None)
