"""Reading what a model wrote: JSON somewhere in its text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_DECODER = json.JSONDecoder()


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects and arrays that stand in a text, in order, whatever is around them; none inside another."""
    at = 0
    while (start := _next_opening(text, at)) >= 0:
        try:
            value, at = _DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            at = start + 1
            continue
        yield value


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, also out of an array, in order."""
    for value in json_values(text):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield one


def first_json(text: str) -> Any | None:
    """The first JSON object or array in a text; None where there is none."""
    return next(json_values(text), None)


def _next_opening(text: str, at: int) -> int:
    found = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(found, default=-1)
