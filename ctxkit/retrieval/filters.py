"""Filters: which chunks a search may return, as bitmaps that are kept up as the index grows."""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval.growing import Growing

Where = Callable[[Chunk], bool] | Mapping[str, Any]
"""A function of a chunk, or values of its metadata by name: a value, a list of values, or {operator: value}."""

_OPERATORS = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_COLUMNS = {"id", "source", "page"}
_KEPT = 32


class Bitmaps:
    """The bitmaps of the filters used last. Each is computed once for each position."""

    def __init__(self) -> None:
        self._maps: OrderedDict[str, Growing] = OrderedDict()

    def get(self, key: str, length: int, rest: Callable[[int], np.ndarray]) -> np.ndarray:
        """bool [length]. rest: from a first position on, the values from there."""
        bitmap = self._maps.pop(key, None) or Growing(bool)
        if len(bitmap) < length:
            bitmap.extend(rest(len(bitmap)))
        self._maps[key] = bitmap
        if len(self._maps) > _KEPT:
            self._maps.popitem(last=False)
        return bitmap.values


def checked(where: Mapping[str, Any]) -> None:
    """Raise ValueError for conditions that cannot be asked."""
    for name, condition in where.items():
        _condition(name, condition)


def key_of(where: Mapping[str, Any]) -> str:
    """Names a filter by its content."""
    return json.dumps(where, sort_keys=True, ensure_ascii=False)


def slots_where(connection: sqlite3.Connection, where: Mapping[str, Any], after: int) -> list[int]:
    """Slots above `after` of the chunks that meet all conditions, rising."""
    clauses, values = ["slot > ?"], [after]
    for name, condition in where.items():
        clause, own = _condition(name, condition)
        clauses.append(clause)
        values += own
    query = f"SELECT slot FROM chunks WHERE {' AND '.join(clauses)} ORDER BY slot"
    return [slot for (slot,) in connection.execute(query, values)]


def _condition(name: str, condition: Any) -> tuple[str, list[Any]]:
    """A clause and its parameters. Metadata are read with sqlite's JSON functions."""
    if name in _COLUMNS:
        left, path = name, []
    else:
        left, path = "json_extract(metadata, ?)", ['$."' + name.replace('"', '\\"') + '"']
    if not isinstance(condition, Mapping):
        clause, values = _equal(left, condition)
        return clause, path + values
    clauses, values = [], []
    for operator, value in condition.items():
        if operator == "in":
            clause, own = _equal(left, list(value))
        elif operator in _OPERATORS:
            clause, own = f"{left} {_OPERATORS[operator]} ?", [_plain(value)]
        else:
            known = ", ".join([*_OPERATORS, "in"])
            raise ValueError(f"`where` knows the operators {known}, got {operator!r} for {name!r}")
        clauses.append(clause)
        values += path + own
    return f"({' AND '.join(clauses) or '1'})", values


def _equal(left: str, value: Any) -> tuple[str, list[Any]]:
    if value is None:
        return f"{left} IS NULL", []
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"{left} IN ({', '.join('?' * len(value))})", [_plain(one) for one in value]
    return f"{left} = ?", [_plain(value)]


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)  # as sqlite reads true and false in JSON
    if isinstance(value, str | int | float):
        return value
    raise ValueError(f"`where` compares with strings, numbers, True and False, got {value!r}")
