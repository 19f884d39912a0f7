"""JSON lines, one record per line, as BEIR writes corpora: {"_id", "title", "text"}."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from ctxkit.documents.decode import decode
from ctxkit.documents.document import Block, Document
from ctxkit.documents.lines import line_spans, paragraphs
from ctxkit.documents.origin import RecordOrigin
from ctxkit.errors import DocumentError

SUFFIXES = (".jsonl", ".ndjson")

_TEXT_FIELDS = ("text", "content", "body")
_ID_FIELDS = ("_id", "id")
_log = logging.getLogger(__name__)


def load(data: bytes, source: str) -> list[Document]:
    """A document per record.

    The text is the value of "text", "content" or "body"; "title" becomes the path, "_id" or "id" becomes
    `metadata["id"]`, and other fields that are a string, number or truth value, or that stand in a "metadata" object,
    are metadata too. Lines and bytes of a chunk are those of the record's whole line in the file, because the value is
    escaped there. A record without such a field is its line as it stands. Lines that are not JSON are skipped, and
    the log says which; with no line left, DocumentError is raised.
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
    _report(broken, bool(documents), source)
    return documents


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


def _report(broken: list[int], any_left: bool, source: str) -> None:
    """Says once per file which lines were no JSON."""
    if not broken and any_left:
        return
    listed = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
    reason = f"not JSON in {len(broken):,} line(s): {listed}" if broken else "no record has any text"
    if not any_left:
        raise DocumentError(source, reason)
    _log.warning("%s: %s; skipped", source, reason)
