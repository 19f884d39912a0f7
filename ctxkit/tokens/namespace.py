"""Tool schemas as OpenAI's models are shown them: a TypeScript namespace, one type per function.

OpenAI has not published the text itself; this is the form that its models repeat and that the cookbook's counts agree
with. What a schema says beyond names, types, enums and descriptions stands in comments here, whether the model is shown
it or not: counted, the text is an upper bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxkit.protocols import Tool

_SHOWN = frozenset({"type", "properties", "required", "items", "enum", "const", "description", "anyOf", "oneOf"})
_NOT_COUNTED = frozenset({"$schema", "additionalProperties", "title"})
_NAMES = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}


def namespace_text(tools: Sequence[Tool]) -> str:
    """The tools as text.

    >>> print(namespace_text([{"type": "function", "function": {"name": "now", "description": "The time"}}]))
    # Tools
    <BLANKLINE>
    ## functions
    <BLANKLINE>
    namespace functions {
    <BLANKLINE>
    // The time
    type now = () => any;
    <BLANKLINE>
    } // namespace functions
    """
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for tool in tools:
        lines += [*_function(tool.get("function") or tool), ""]
    return "\n".join([*lines, "} // namespace functions"])


def _function(function: Mapping[str, Any]) -> Iterator[str]:
    yield from _comment(function.get("description"))
    name, parameters = function.get("name", ""), function.get("parameters") or {}
    yield from _remarks(parameters)
    if not parameters.get("properties"):
        yield f"type {name} = () => any;"
        return
    yield f"type {name} = (_: {{"
    yield from _properties(parameters)
    yield "}) => any;"


def _properties(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required") or ()
    for name, inner in (schema.get("properties") or {}).items():
        inner = inner if isinstance(inner, Mapping) else {}
        yield from _comment(inner.get("description"))
        yield from _remarks(inner)
        yield f"{name}{'' if name in required else '?'}: {_type(inner)},"


def _type(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "any"
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema.get("enum", [schema.get("const")]))
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " | ".join(map(_type, options))
    kind = schema.get("type", "any")
    if isinstance(kind, list | tuple):
        return " | ".join(_type({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"{_type(schema.get('items'))}[]"
    if kind == "object" and schema.get("properties"):
        return "\n".join(["{", *_properties(schema), "}"])
    return _NAMES.get(kind, str(kind))


def _comment(text: Any) -> Iterator[str]:
    if text:
        yield from (f"// {line}" for line in str(text).splitlines())


def _remarks(schema: Mapping[str, Any]) -> Iterator[str]:
    """What the schema says that its type does not show, inner schemas of arrays included."""
    for key, value in schema.items():
        if key not in _SHOWN | _NOT_COUNTED:
            yield f"// {key}: {json.dumps(value, ensure_ascii=False, default=str)}"
    for inner in (schema.get("items"), *(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())):
        if isinstance(inner, Mapping):
            yield from _comment(inner.get("description"))
            yield from _remarks(inner)
