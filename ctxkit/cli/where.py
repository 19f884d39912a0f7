"""Conditions on metadata as they are written on the command line: `lang=en`, `year>=2020`, `draft=false`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import typer

_CONDITION = re.compile(r"\s*([^<>=!]+?)\s*(==|!=|<=|>=|<|>|=)(.*)", re.DOTALL)


def conditions(written: Sequence[str]) -> dict[str, Any] | None:
    """What `Index.search` takes as `where`; None for none. All must hold; of one key given twice with =, either value.

    A value is a number, true or false where it reads as one, else a string; in double quotes it is always a string.
    Raises BadParameter.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in written:
        match = _CONDITION.fullmatch(one)
        if match is None:
            raise typer.BadParameter(f"{one!r} is none of KEY=VALUE, KEY!=VALUE, KEY>=VALUE, ...", param_hint="--where")
        key, operator, value = match[1], match[2], _typed(match[3].strip())
        own = found.setdefault(key, {})
        if operator in ("=", "=="):
            own.setdefault("in", []).append(value)
        elif operator in own:
            raise typer.BadParameter(f"{key!r} has two conditions with {operator}", param_hint="--where")
        else:
            own[operator] = value
    return found or None


def _typed(value: str) -> str | int | float | bool:
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if isinstance(read, str | bool | int) or _finite(read) else value


def _finite(value: Any) -> bool:
    return isinstance(value, float) and value - value == 0
