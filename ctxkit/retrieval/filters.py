"""Filters: which chunks a search may return, as bitmaps that are kept up as the index grows."""

from __future__ import annotations

import json
import math
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
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COLUMNS = {"id", "source", "page"}
_TEXT, _NUMBER = "t = 'text'", "t IN ('integer', 'real', 'true', 'false')"
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
        if not isinstance(name, str):
            raise ValueError(f"`where` takes names of metadata, got {name!r}")
        _condition(name, condition)


def key_of(where: Mapping[str, Any]) -> str:
    """Names a filter by its content."""
    return json.dumps(where, sort_keys=True, ensure_ascii=False, default=_as_json)


def predicate(where: Where) -> Callable[[Chunk], bool]:
    """The filter as a function of a chunk, for indexes that keep their chunks elsewhere."""
    if not isinstance(where, Mapping):
        return where
    checked(where)
    conditions = [(name, _by_operator(condition)) for name, condition in where.items()]
    return lambda chunk: all(
        _meets(_value(chunk, name), sign, wanted)
        for name, condition in conditions
        for sign, wanted in condition.items()
    )


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
    """A clause and its parameters. It sees `v`, the value of that name, and `t`, its type in JSON."""
    clauses: list[str] = []
    values: list[Any] = []
    for sign, value in _by_operator(condition).items():
        clause, own = _compared(name, sign, value)
        clauses.append(clause)
        values += own
    table, asked = _value_of(name)
    return f"EXISTS (SELECT 1 FROM ({table}) WHERE {' AND '.join(clauses) or '1'})", asked + values


def _by_operator(condition: Any) -> Mapping[str, Any]:
    if isinstance(condition, Mapping):
        return condition
    return {"in": condition} if _is_list(condition) else {"==": condition}


def _value(chunk: Chunk, name: str) -> Any:
    return getattr(chunk, name) if name in _COLUMNS else chunk.metadata.get(name)


def _meets(value: Any, sign: str, wanted: Any) -> bool:
    """What the clause of `_compared` says, of a value."""
    if sign == "in":
        return any(_meets(value, "==", one) for one in wanted)
    if wanted is None or value is None:
        return wanted is None and (value is None) == (sign == "==")
    alike = isinstance(value, str) if isinstance(wanted, str) else isinstance(value, int | float)
    if sign == "!=":
        return not (alike and value == wanted)
    return alike and bool(_COMPARISONS[sign](value, wanted))


def _value_of(name: str) -> tuple[str, list[Any]]:
    """One row `v`, `t`. Names are compared as JSON spells them, which sqlite's paths can say of all but quotes."""
    if name in _COLUMNS:
        return f"SELECT +{name} AS v, typeof({name}) AS t", []  # + takes the column's affinity away
    if '"' in name:
        found = "SELECT {} FROM json_each(metadata) WHERE key = ?"
        return f"SELECT ({found.format('value')}) AS v, ({found.format('type')}) AS t", [name, name]
    path = "$." + json.dumps(name, ensure_ascii=False)
    return "SELECT json_extract(metadata, ?) AS v, json_type(metadata, ?) AS t", [path, path]


def _compared(name: str, sign: str, value: Any) -> tuple[str, list[Any]]:
    if sign == "in":
        if not _is_list(value):
            raise ValueError(f"`where` takes a list after 'in', got {value!r} for {name!r}")
        return _among(value)
    if sign not in _SIGNS:
        known = ", ".join([*_SIGNS, "in"])
        raise ValueError(f"`where` knows the operators {known}, got {sign!r} for {name!r}")
    if value is None and sign in ("==", "!="):
        return "v IS NULL" if sign == "==" else "v IS NOT NULL", []
    kind = _TEXT if isinstance(value, str) else _NUMBER
    if sign == "!=":
        return f"(v IS NOT NULL AND NOT ({kind} AND v = ?))", [_plain(value)]
    return f"({kind} AND v {_SIGNS[sign]} ?)", [_plain(value)]


def _among(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Lists go to sqlite as JSON: it takes neither many parameters nor deep conditions."""
    plain = [_plain(one) for one in values if one is not None]
    texts = [one for one in plain if isinstance(one, str)]
    numbers = [one for one in plain if not isinstance(one, str) and math.isfinite(one)]  # no metadata are infinite
    clauses = ["v IS NULL"] if any(one is None for one in values) else []
    clauses += [f"({kind} AND v IN (SELECT value FROM json_each(?)))" for kind in (_TEXT, _NUMBER)]
    return f"({' OR '.join(clauses)})", [json.dumps(texts), json.dumps(numbers)]


def _as_json(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)  # as sqlite reads true and false in JSON
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"`where` compares with integers of 64 bits, got {value!r}")
    if isinstance(value, str | int | float) and value == value:
        return value
    raise ValueError(f"`where` compares with strings, numbers, True and False, got {value!r}")
