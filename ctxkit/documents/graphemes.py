"""Where a text must not be cut: inside an extended grapheme cluster (Unicode UAX 29)."""

from __future__ import annotations

import regex

from ctxkit.documents.lines import line_spans

_CLUSTER = regex.compile(r"\X")


def cluster_interiors(text: str) -> frozenset[int]:
    """Char offsets that lie between two chars of one cluster (the two chars of `\\r\\n` included)."""
    inside = {i + 1 for i in _find_all(text, "\r\n")}
    if text.isascii():
        return frozenset(inside)
    for start, end in line_spans(text):  # a line end always closes a cluster: lines are independent
        if not text[start:end].isascii():
            for cluster in _CLUSTER.finditer(text, start, end):
                inside.update(range(cluster.start() + 1, cluster.end()))
    return frozenset(inside)


def _find_all(text: str, needle: str) -> list[int]:
    found, position = [], text.find(needle)
    while position >= 0:
        found.append(position)
        position = text.find(needle, position + len(needle))
    return found
