"""Numbered: items as a numbered list in a prompt, and the numbered lines of an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LINE = re.compile(r"^[\s*_#\[(]*(\d{1,9})(?:[\])*_ ]*(?::|[.)–-](?=\s))|[\])]+)[ *_]*(\S.*?)\s*$", re.MULTILINE)


def numbered(items: Sequence[str]) -> str:
    """The items as [1], [2], ...; the further lines of an item are indented, so that none looks like another item.

    >>> print(numbered(["one", "two\\n[3] lines"]))
    [1] one
    [2] two
        [3] lines
    """
    return "\n".join(f"[{n}] {_indented(item)}" for n, item in enumerate(items, 1))


def numbered_lines(text: str, count: int) -> dict[int, str]:
    """What the lines "3: ..." (also "[3] ...", "3. ...", "**3**: ...") of an answer say, by number from 1 to `count`.

    A number that two lines say different things of is left out: nobody knows which is meant.

    >>> numbered_lines("1: yes\\n2) no\\n7: yes\\n2: yes", count=3)
    {1: 'yes'}
    """
    said: dict[int, set[str]] = {}
    for number, rest in _LINE.findall(text):
        if 1 <= int(number) <= count:
            said.setdefault(int(number), set()).add(rest)
    return {number: lines.pop() for number, lines in said.items() if len(lines) == 1}


def _indented(item: str) -> str:
    return "\n    ".join(item.strip().splitlines())
