"""Chunks as rows of the table `chunks`, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval.document_text import document_terms
from ctxkit.retrieval.storage.tables import CHUNKS, Value, rows

_AT_ONCE = 500  # sqlite takes a limited number of parameters


def chunk_row(chunk: Chunk) -> tuple[Value, ...]:
    """Columns `id` to `terms`. Raises ValueError where the metadata are no JSON."""
    try:
        metadata = json.dumps(dict(chunk.metadata), ensure_ascii=False, allow_nan=False)  # sqlite reads no NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` of chunk {chunk.id!r} must be JSON: {error}") from error
    return (
        *(chunk.id, chunk.source, chunk.text, json.dumps(chunk.title_path, ensure_ascii=False)),
        *(chunk.start_line, chunk.end_line, chunk.start_byte, chunk.end_byte, chunk.page),
        metadata,
        " ".join(document_terms(chunk)),
    )


def chunk_of(row: Sequence[Any]) -> Chunk:
    """The chunk of a whole row, slot first."""
    _, _, id_, source, text, title_path, start_line, end_line, start_byte, end_byte, page, metadata, *_ = row
    return Chunk(
        id=id_,
        source=source,
        text=text,
        title_path=tuple(json.loads(title_path)),
        start_line=start_line,
        end_line=end_line,
        start_byte=start_byte,
        end_byte=end_byte,
        page=page,
        metadata=json.loads(metadata),
    )


def chunks_by_slot(connection: sqlite3.Connection, slots: Sequence[int]) -> dict[int, Chunk]:
    """The chunks of these slots, where they are."""
    found: dict[int, Chunk] = {}
    for at in range(0, len(slots), _AT_ONCE):
        some = slots[at : at + _AT_ONCE]
        where = f"WHERE slot IN ({', '.join('?' * len(some))})"
        found |= {row[0]: chunk_of(row) for row in rows(connection, CHUNKS, where, some)}  # type: ignore[misc]
    return found


def chunk_by_id(connection: sqlite3.Connection, id_: str) -> Chunk | None:
    """The chunk of that id, None where there is none."""
    return next((chunk_of(row) for row in rows(connection, CHUNKS, "WHERE id = ?", (id_,))), None)
