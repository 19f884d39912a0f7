"""Filters: which chunks a search may return, as bitmaps that are kept up as the index grows."""

from __future__ import annotations

import json
import operator
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval.growing import Growing

Where = Callable[[Chunk], bool] | Mapping[str, Any]
"""A function of a chunk, or values of its metadata by name: a value, a list of values, or {operator: value}."""

_SIGNS = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
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


def predicate(where: Where) -> Callable[[Chunk], bool]:
    """The filter as a function of a chunk."""
    if not isinstance(where, Mapping):
        return where
    conditions = dict(where)
    checked(conditions)
    return lambda chunk: all(_meets(_value(chunk, name), condition) for name, condition in conditions.items())


def _value(chunk: Chunk, name: str) -> Any:
    value = getattr(chunk, name) if name in _COLUMNS else chunk.metadata.get(name)
    return value if isinstance(value, str | int | float) else None


def _meets(value: Any, condition: Any) -> bool:
    if isinstance(condition, Mapping):
        return all(_compares(value, sign, wanted) for sign, wanted in condition.items())
    return _compares(value, "in" if _is_list(condition) else "==", condition)


def _compares(value: Any, sign: str, wanted: Any) -> bool:
    """Numbers are compared with numbers and strings with strings; what is missing equals None and nothing else."""
    if sign == "in":
        return any(_compares(value, "==", one) for one in wanted)
    if wanted is None or value is None:
        return sign == "==" and value is wanted
    if isinstance(value, str) != isinstance(wanted, str):
        return sign == "!="
    return bool(_COMPARISONS[sign](value, wanted))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _condition(name: str, condition: Any) -> tuple[str, list[Any]]:
    """The condition in SQL, and its parameters."""
    quoted = name.replace("'", "''")
    left = name if name in _COLUMNS else f"(SELECT atom FROM json_each(metadata) WHERE key = '{quoted}')"
    if not isinstance(condition, Mapping):
        return _comparison(left, name, "in" if _is_list(condition) else "==", condition)
    clauses = [_comparison(left, name, sign, value) for sign, value in condition.items()]
    return " AND ".join(["1", *(clause for clause, _ in clauses)]), [value for _, own in clauses for value in own]


def _comparison(left: str, name: str, sign: str, value: Any) -> tuple[str, list[Any]]:
    if sign == "in" and _is_list(value):
        options = [_comparison(left, name, "==", one) for one in value]
        either = " OR ".join(["0", *(clause for clause, _ in options)])
        return f"({either})", [one for _, own in options for one in own]
    if sign not in _SIGNS:
        known = ", ".join([*_SIGNS, "in"])
        raise ValueError(f"`where` knows {known} (with a list), got {sign!r} for {name!r}")
    if value is None and sign == "==":
        return f"{left} IS NULL", []
    plain = _plain(value, name)
    if sign in ("==", "!="):
        return f"{left} {_SIGNS[sign]} ?", [plain]
    kind = "= 'text'" if isinstance(plain, str) else "IN ('integer', 'real')"
    return f"({left} {_SIGNS[sign]} ? AND typeof({left}) {kind})", [plain]


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, bool):
        return int(value)  # as sqlite reads true and false in JSON
    if isinstance(value, str | int | float):
        return value
    raise ValueError(f"`where` compares with strings, numbers, True, False and None, got {value!r} for {name!r}")
