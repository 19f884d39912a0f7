"""Items of the responses API as they are kept and listed: whole messages, each with an id."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ctxkit.server.problems import Problem

Order = Literal["asc", "desc"]

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def as_items(given: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An input as items. They get ids of their own, because a client may send the same id again and pages go by id."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [_item(item) for item in items]


def page(items: Sequence[Mapping[str, Any]], after: str | None, limit: int, order: Order) -> dict[str, Any]:
    """Of items in the order in which they were said, `limit` behind the one called `after`.

    Raises Problem 400 where there is none of that name.
    """
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise Problem(400, f"`after`: there is no item {after!r} here", code="invalid_value", param="after")
    start = 0 if after is None else ids.index(after) + 1
    data = ordered[start : start + limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(ordered),
    }


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type", "message")
    whole = {**item, "type": kind, "id": new_id(_PREFIXES.get(kind, "item"))}
    if kind != "message":
        return whole
    role = item.get("role", "user")
    return {**whole, "role": role, "status": "completed", "content": _blocks(item.get("content"), role)}


def _blocks(content: Any, role: str) -> Any:
    """A text as the one block that it is."""
    if isinstance(content, list):
        return content
    if role == "assistant":
        return [{"type": "output_text", "text": content or "", "annotations": []}]
    return [{"type": "input_text", "text": content or ""}]
