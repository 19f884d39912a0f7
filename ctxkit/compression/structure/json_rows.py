"""Rows: items of an array that have the keys of its first item, and can be written without saying them again."""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.compression.structure.json_tree import Node

MOST_FIELDS = 24
_LEAST_SAVED_CHARS = 100

Rows = list[int]
"""For each node the item that it is written as a row with, -1 for what always keeps its keys."""


def rows_of(text: str, nodes: Sequence[Node]) -> Rows:
    """Items with exactly the keys of the first object of their array, in its order; objects inside them likewise.

    The first object is never a row: it says what the others mean. Arrays where little would be saved have none.
    """
    children: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        if node.parent >= 0:
            children[node.parent].append(index)
    shapes = [
        _shape(text, nodes, found) if node.opener == "{" else None for node, found in zip(nodes, children, strict=True)
    ]
    rows = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        if node.opener == "[":
            _mark_rows(children[index], children, shapes, rows)
    return rows


def _shape(text: str, nodes: Sequence[Node], fields: Sequence[int]) -> tuple[str, ...] | None:
    if not 0 < len(fields) <= MOST_FIELDS:
        return None
    return tuple(text[slice(*key)] for key in (nodes[field].key for field in fields) if key is not None)


def _mark_rows(
    items: Sequence[int], children: Sequence[Sequence[int]], shapes: Sequence[tuple[str, ...] | None], rows: Rows
) -> None:
    model = next((item for item in items if shapes[item] is not None), None)
    if model is None:
        return
    like = [item for item in items if item > model and shapes[item] == shapes[model]]
    if len(like) * sum(len(key) + 1 for key in shapes[model] or ()) < _LEAST_SAVED_CHARS:
        return
    for item in like:
        waiting = [(item, model)]
        while waiting:
            one, other = waiting.pop()
            if shapes[one] is not None and shapes[one] == shapes[other]:
                rows[one] = item
                waiting += zip(children[one], children[other], strict=True)
            elif shapes[one] is None and shapes[other] is None:
                first = next((child for child in children[other] if shapes[child] is not None), None)
                waiting += [
                    (child, first) for child in children[one] if first is not None and shapes[child] is not None
                ]
