"""Differences of two texts, as a unified diff that gives the second text back byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from ctxkit.compression.diffs.align import Change, changes

_HUNK = re.compile(r"@@ -([0-9]+)(?:,([0-9]+))? \+([0-9]+)(?:,([0-9]+))? @@")
_NO_NEWLINE = "\\ No newline at end of file"
_JOIN_CHARS = 20  # equal lines shorter than one more `@@` line is are repeated instead


def diff(base: str, text: str) -> str:
    r"""What turns `base` into `text`: a unified diff without its two header lines and without context; "" for nothing.

    Lines end with \n and nothing else; a \r is part of its line. Between two hunks that nearly meet, the equal lines
    are given instead of a new `@@` line.

    >>> print(diff("a\nb\nc\n", "a\nB\nc"))
    @@ -2,2 +2,2 @@
    -b
    -c
    +B
    +c
    \ No newline at end of file
    """
    before, after = _lines(base), _lines(text)
    hunks = _joined(changes(before, after), before)
    return "\n".join(chain.from_iterable(_written(hunk, before, after) for hunk in hunks))


def apply(base: str, diff: str) -> str:
    """The text that `diff(base, text)` was made of. Raises ValueError for a diff of another base, or no diff."""
    before, given = _lines(base), diff.split("\n") if diff else []
    made: list[str] = []
    at = place = 0
    while place < len(given):
        match = _HUNK.fullmatch(given[place])
        if match is None:
            raise ValueError(f"line {place + 1} of the diff is no `@@` line: {given[place][:80]!r}")
        start, removed, _, added = (1 if number is None else int(number) for number in match.groups())
        start -= removed > 0  # lines count from 1; a hunk that removes nothing names the line before it
        old, new, place = _read(given, place + 1, removed, added)
        if start < at or before[start : start + removed] != old:
            raise ValueError(f"the diff was made for another base: its hunk `{match[0]}` does not fit")
        made += before[at:start] + new
        at = start + removed
    return "".join(chain(made, before[at:]))


def _lines(text: str) -> list[str]:
    r"""The lines with their \n; the last one may have none."""
    *ended, last = text.split("\n")
    return [*(line + "\n" for line in ended), *([last] if last else [])]


def _joined(found: Sequence[Change], before: Sequence[str]) -> list[list[Change]]:
    """Changes that nearly meet, together."""
    hunks: list[list[Change]] = []
    for change in found:
        between = before[hunks[-1][-1].end : change.start] if hunks else []
        if hunks and sum(map(len, between)) + len(between) <= _JOIN_CHARS:
            hunks[-1].append(change)
        else:
            hunks.append([change])
    return hunks


def _written(hunk: Sequence[Change], before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    first, last = hunk[0], hunk[-1]
    yield f"@@ -{_span(first.start, last.end)} +{_span(first.new_start, last.new_end)} @@"
    at = first.start
    for change in hunk:
        yield from _marked(" ", before[at : change.start])
        yield from _marked("-", before[change.start : change.end])
        yield from _marked("+", after[change.new_start : change.new_end])
        at = change.end


def _span(start: int, end: int) -> str:
    count = end - start
    return str(start + 1) if count == 1 else f"{start + (count > 0)},{count}"


def _marked(sign: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield sign + line.removesuffix("\n")
        if not line.endswith("\n"):
            yield _NO_NEWLINE


def _read(given: Sequence[str], place: int, removed: int, added: int) -> tuple[list[str], list[str], int]:
    """The lines of a hunk before and after, and the place behind it."""
    old: list[str] = []
    new: list[str] = []
    while place < len(given) and (len(old) < removed or len(new) < added):
        sign, line = given[place][:1], given[place][1:]
        ended = given[place + 1 : place + 2] != [_NO_NEWLINE]
        line, place = line + "\n" * ended, place + 2 - ended
        if sign not in ("-", "+", " "):
            break
        old += [line] * (sign != "+")
        new += [line] * (sign != "-")
    if (len(old), len(new)) != (removed, added):
        raise ValueError(f"a hunk of the diff ends early, or has other lines than it says, at line {place}")
    return old, new, place
