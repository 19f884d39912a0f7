"""JSON lines, one record per line, as BEIR writes corpora: {"_id", "title", "text"}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ctxkit.documents.decode import decode
from ctxkit.documents.document import Block, Document
from ctxkit.documents.lines import line_spans, paragraphs
from ctxkit.documents.origin import RecordOrigin
from ctxkit.errors import DocumentError

SUFFIXES = (".jsonl", ".ndjson")

_TEXT_FIELDS = ("text", "content", "body")
_ID_FIELDS = ("_id", "id")


def load(data: bytes, source: str) -> list[Document]:
    """A document per record.

    The text is the value of "text", "content" or "body"; "title" becomes the path, "_id" or "id" becomes
    `metadata["id"]`, and other fields that are a string, number or truth value, or that stand in a "metadata" object,
    are metadata too. Lines and bytes of a chunk are those of the record's whole line in the file, because the value is
    escaped there. A record without such a field is its line as it stands. Lines that are not JSON are skipped, and
    the first document's `notes` say which; with no line left, DocumentError is raised.
    """
    decoded = decode(data, source)
    place = decoded.origin()
    documents: list[Document] = []
    broken: list[int] = []
    for line, (start, end) in enumerate(line_spans(decoded.text), 1):
        raw = decoded.text[start:end].strip()
        first = start + decoded.text[start:end].find(raw)
        origin = RecordOrigin(line, place.byte(first), place.byte(first + len(raw)))
        try:
            documents.extend(_record(json.loads(raw), raw, source, origin) if raw else ())
        except (ValueError, RecursionError):
            broken.append(line)
    return _noted(documents, broken, source)


def _record(record: Any, raw: str, source: str, origin: RecordOrigin) -> Iterator[Document]:
    fields: Mapping[str, Any] = record if isinstance(record, dict) else {}
    name = next((name for name in _TEXT_FIELDS if isinstance(fields.get(name), str)), None)
    text = raw if name is None else fields[name]
    if not text.strip():
        return
    title = fields.get("title") if name else None
    path = (title.strip(),) if isinstance(title, str) and title.strip() else ()
    blocks = tuple(Block(start, end, "paragraph" if name else "lines", path) for start, end in paragraphs(text))
    yield Document(source, text, blocks, origin, _metadata(fields, (name, "title")) if name else {})


def _metadata(fields: Mapping[str, Any], taken: tuple[str | None, ...]) -> dict[str, Any]:
    extra = fields.get("metadata")
    metadata = dict(extra) if isinstance(extra, dict) else {}
    plain = {key: value for key, value in fields.items() if isinstance(value, str | int | float | bool)}
    metadata.update((key, value) for key, value in plain.items() if key not in (*taken, *_ID_FIELDS))
    identifier = next((plain[key] for key in _ID_FIELDS if key in plain), None)
    return metadata if identifier is None else {**metadata, "id": identifier}


def _noted(documents: list[Document], broken: list[int], source: str) -> list[Document]:
    """The documents, the first one with a note of the lines that were no JSON."""
    listed = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
    reason = f"not JSON in {len(broken):,} line(s): {listed}" if broken else "no record has any text"
    if not documents:
        raise DocumentError(source, reason)
    return [replace(documents[0], notes=(reason,)), *documents[1:]] if broken else documents
