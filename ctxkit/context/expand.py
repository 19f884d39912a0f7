"""The `expand` tool: how a model asks for what a prompt left out."""

from __future__ import annotations

import json
from typing import Any

from ctxkit.protocols import Tool

EXPAND_NAME = "expand"

EXPAND: Tool = {
    "type": "function",
    "function": {
        "name": EXPAND_NAME,
        "description": "Get back text that was omitted or shortened.",
        "parameters": {
            "type": "object",
            "properties": {"ref": {"type": "string", "description": "as given in expand(...)"}},
            "required": ["ref"],
        },
    },
}
"""Offered exactly when the prompt shows a handle."""


def expand_call(ref: str) -> str:
    """What a prompt shows for a ref: `expand("m3")`."""
    return f"{EXPAND_NAME}({json.dumps(ref, ensure_ascii=False)})"


def shows(text: str, part_id: str) -> bool:
    """Whether a text tells the model how to expand the part, or lines of it; also from within JSON."""
    call = expand_call(part_id)[:-2]  # without the closing quote: lines may follow
    return call in text or json.dumps(call, ensure_ascii=False)[1:-1] in text


def parse_ref(ref: str) -> tuple[str, tuple[int, int] | None]:
    """`Handle.ref` as (part id, lines or None).

    >>> parse_ref("m3:40-310"), parse_ref("m3")
    (('m3', (40, 310)), ('m3', None))
    """
    part_id, colon, lines = ref.strip().strip("\"'").rpartition(":")
    first, dash, last = lines.partition("-")
    if colon and dash and first.isdecimal() and last.isdecimal():
        return part_id, (int(first), int(last))
    return ref.strip().strip("\"'"), None


def lines_of(source: str, span: tuple[int, int] | None) -> str:
    """These lines of a text, 1-based and both included; all of it for None.

    >>> lines_of("a\\nb\\nc", (2, 3)), lines_of("a\\nb", None)
    ('b\\nc', 'a\\nb')
    """
    if span is None:
        return source
    return "\n".join(source.split("\n")[max(span[0], 1) - 1 : span[1]])


def refs_in(call: Any) -> str:
    """The `ref` argument of a call of `expand`, "" where there is none."""
    arguments = (call.get("function") or {}).get("arguments") or "{}"
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except json.JSONDecodeError:
        return ""
    return str(parsed.get("ref", "")) if isinstance(parsed, dict) else ""
