"""Content blocks, system prompts and tool calls between OpenAI's form and Anthropic's, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ctxkit.context.chat.reading import TEXT_BLOCKS, call_type

Block = Mapping[str, Any]

CALL_MARKER = "tool_call"
"""Type of the block that holds the place of a call among the blocks of an assistant's content: {type, id}."""

AUDIO_LEFT_OUT = "[audio left out: the messages API takes none]"
_RAW_ARGUMENTS = "__arguments__"  # the one key of an input whose arguments were no JSON object
_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)


def to_anthropic_block(block: Block) -> dict[str, Any]:
    """A block of OpenAI's form in Anthropic's. What it does not know stays as it is."""
    kind = block["type"]
    if kind in TEXT_BLOCKS:
        return {**block, "type": "text"}
    if kind == "refusal":
        return {"type": "text", "text": str(block.get("refusal") or "")}
    if kind == "image_url":
        url = block["image_url"]
        source = _source(str(url["url"] if isinstance(url, Mapping) else url))
        return {"type": "image", "source": source, **_others(block, "image_url")}
    if kind == "file":
        return {"type": "document", **_document(block["file"]), **_others(block, "file")}
    if kind == "input_audio":
        return {"type": "text", "text": AUDIO_LEFT_OUT}
    return dict(block)


def from_anthropic_block(block: Block) -> dict[str, Any]:
    """A block of Anthropic's form in OpenAI's; images and files that OpenAI has a form for, the others as they are."""
    kind, source = block.get("type"), block.get("source")
    if not isinstance(source, Mapping):
        return dict(block)
    if kind == "image" and source.keys() in ({"type", "media_type", "data"}, {"type", "url"}):
        url = source["url"] if "url" in source else _data_url(source)
        return {"type": "image_url", "image_url": {"url": url}, **_others(block, "source")}
    if kind == "document" and source.get("type") == "base64" and source.keys() == {"type", "media_type", "data"}:
        file = {"file_data": _data_url(source)}
        if "title" in block:
            file = {"filename": block["title"], **file}
        return {"type": "file", "file": file, **_others(block, "source", "title")}
    return dict(block)


def _others(block: Block, *known: str) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "type" and key not in known}


def _data_url(source: Mapping[str, Any]) -> str:
    return f"data:{source['media_type']};base64,{source['data']}"


def _source(url: str) -> dict[str, Any]:
    match = _DATA_URL.fullmatch(url)
    if match is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": match[1], "data": match[2]}


def _document(file: Mapping[str, Any]) -> dict[str, Any]:
    title = {"title": file["filename"]} if file.get("filename") else {}
    if file.get("file_id"):
        return {"source": {"type": "file", "file_id": file["file_id"]}, **title}
    return {"source": _source(str(file.get("file_data") or "")), **title}


def to_anthropic_blocks(content: Any) -> list[dict[str, Any]]:
    """A content of OpenAI's form as blocks, empty texts left out."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content and content.strip() else []
    blocks = [to_anthropic_block(block) for block in content]
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()]


def to_tool_use(call: Mapping[str, Any], call_id: str) -> dict[str, Any]:
    """A tool call as a tool_use block. Arguments that are no JSON object go under one key of their own."""
    kind = call_type(call)
    body = call[kind]
    arguments = body.get("arguments", "") if kind == "function" else json.dumps({"input": body.get("input", "")})
    rest = {key: value for key, value in call.items() if key not in ("id", "type", kind)}
    return {"type": "tool_use", "id": call_id, "name": body["name"], "input": _input(arguments), **rest}


def from_tool_use(block: Block) -> dict[str, Any]:
    """A tool_use block as a tool call, its input as JSON."""
    given = block.get("input") or {}
    raw = given.get(_RAW_ARGUMENTS) if given.keys() == {_RAW_ARGUMENTS} else None
    arguments = raw if isinstance(raw, str) else json.dumps(given, ensure_ascii=False)
    rest = _others(block, "id", "name", "input")
    return {
        "id": block["id"],
        "type": "function",
        "function": {"name": block["name"], "arguments": arguments},
        **rest,
    }


def _input(arguments: Any) -> Mapping[str, Any]:
    if isinstance(arguments, Mapping):
        return arguments
    try:
        value = json.loads(arguments, parse_constant=_refuse) if arguments else {}
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {_RAW_ARGUMENTS: arguments}


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def is_plain_text(blocks: Sequence[Block]) -> bool:
    """Whether the blocks are one text and nothing besides, so that a str says the same."""
    return len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
