"""JSON as a tree over its source: every key, number and string keeps its place, so nothing is ever re-written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(slots=True)
class Node:
    """A value. Nodes stand in a list in the order of the source, parents before children.

    opener: its first character for objects, arrays and strings; "" for numbers, true, false and null.
    key, start, end: char spans in the source, of the key literal with its quotes (None in arrays) and of the value.
    parent: index of the container, -1 for the root. ordinal: place among its siblings. children: how many it has.
    """

    opener: str
    key: tuple[int, int] | None
    start: int
    end: int
    parent: int
    ordinal: int
    children: int = 0

    @property
    def is_text(self) -> bool:
        return self.opener == '"'

    @property
    def is_container(self) -> bool:
        return self.opener in ("{", "[")


def parse(text: str) -> list[Node] | None:
    """The nodes of a JSON text; None for anything else, and for what is nested too deeply for Python's parser.

    Equal keys of one object are nodes of their own.
    """
    if text.lstrip()[:1] not in ("{", "[", '"') or not is_json(text):
        return None
    return _Builder(text).nodes()


def parse_lines(text: str) -> list[Node] | None:
    """The nodes of a text with a JSON object or array on each line, under an array that is nowhere written."""
    found = [line for line in text.split("\n") if line.strip()]
    if len(found) < 2 or not all(line[:1] in ("{", "[") for line in found) or not all(map(is_json, found)):
        return None
    builder = _Builder(text)
    builder.found.append(Node("[", None, 0, len(text), -1, 0))
    builder.open.append(0)
    return builder.nodes()


def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=len, parse_float=len, parse_constant=len)
    except (ValueError, RecursionError):
        return False
    return True


class _Builder:
    """Walks the tokens of a text that is known to be valid."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Node] = []
        self.open: list[int] = []
        self.key: tuple[int, int] | None = None
        self.waiting: tuple[int, int] | None = None

    def nodes(self) -> list[Node]:
        for match in _TOKEN.finditer(self.text):
            token = self.text[match.start()]
            if token == ":":
                self.key, self.waiting = self.waiting, None
            elif token in ",}]":
                self._settle()
                if token != ",":
                    self.found[self.open.pop()].end = match.end()
            elif token in "{[":
                self._add(token, match.start(), match.end())
                self.open.append(len(self.found) - 1)
            else:
                self.waiting = match.span()
        self._settle()
        return self.found

    def _settle(self) -> None:
        """A literal was a value, now that no colon came behind it."""
        if self.waiting is not None:
            start, end = self.waiting
            self._add('"' if self.text[start] == '"' else "", start, end)
            self.waiting = None

    def _add(self, opener: str, start: int, end: int) -> None:
        parent = self.open[-1] if self.open else -1
        ordinal = 0
        if parent >= 0:
            ordinal = self.found[parent].children
            self.found[parent].children += 1
        self.found.append(Node(opener, self.key, start, end, parent, ordinal))
        self.key = None
