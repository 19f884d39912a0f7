"""The face of a database behind an index, and what is written into it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, MissingExtra, StoreError
from ctxkit.retrieval.storage.settings import EncoderIdentity

FORMAT_VERSION = 1


class Row(NamedTuple):
    """A chunk as it is stored.

    text_key: names the text that was encoded; equal texts have equal keys. words: what lexical search sees, in order.
    vectors: float32 [rows, dims], at least one row.
    """

    chunk: Chunk
    text_key: str
    words: list[str]
    vectors: np.ndarray


class Scored(NamedTuple):
    """The id of a chunk and a method's score for it; higher is better."""

    id: str
    score: float


class Database(Protocol):
    """One table or collection: chunks with their vectors and words, and records of sources with a content hash.

    Every method raises StoreError where the database cannot be reached, says no, or was closed.
    """

    @property
    def place(self) -> str:
        """Where it is: a folder or a URL."""
        ...

    @property
    def identity(self) -> EncoderIdentity:
        """The encoder that made the vectors."""
        ...

    def count(self) -> int:
        """Chunks."""
        ...

    def sources(self, names: Collection[str] | None = None) -> dict[str, str]:
        """The recorded sources, or those of these names, with their content hashes."""
        ...

    def chunks(self, ids: Collection[str]) -> dict[str, Chunk]:
        """The chunks of these ids; absent where there is none."""
        ...

    def vectors(self, text_keys: Collection[str]) -> dict[str, np.ndarray]:
        """Stored vectors of these texts, float32 [rows, dims] each; absent where there are none."""
        ...

    def upsert(self, rows: Sequence[Row], sources: Mapping[str, str]) -> None:
        """Write chunks and records of sources, in place of those of equal id and name."""
        ...

    def replace(self, rows: Sequence[Row], sources: Mapping[str, str]) -> int:
        """`upsert`, and delete all other chunks of `sources`; returns how many went."""
        ...

    def delete(self, sources: Collection[str], ids: Collection[str]) -> int:
        """Delete the sources with all their chunks, and the chunks of these ids; returns how many chunks went."""
        ...

    def nearest(self, query: np.ndarray, limit: int, sources: Sequence[str] | None, *, exact: bool) -> list[Scored]:
        """The `limit` chunks of highest MaxSim (the sum over query rows of the best inner product), best first.

        query: float32 [query rows, dims]. sources: exact names, None for all; it filters before ranking.
        exact: compare with every vector instead of asking an approximate index.
        """
        ...

    def matching(self, words: Sequence[str], limit: int, sources: Sequence[str] | None) -> list[Scored]:
        """The `limit` best chunks by BM25 that hold one of these distinct words, best first."""
        ...

    def approximate(self) -> bool:
        """Whether `nearest` without `exact` may miss chunks."""
        ...

    def close(self) -> None: ...


def needed(module: str, package: str, extra: str) -> Any:
    """The module. Raises MissingExtra where its package is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(package, extra) from error


def to_fields(chunk: Chunk) -> dict[str, Any]:
    """The chunk as plain values; metadata as one JSON text, so that it comes back as it went in.

    Raises ValueError for metadata that is no JSON.
    """
    fields = {name: getattr(chunk, name) for name in Chunk.__dataclass_fields__}
    try:
        metadata = json.dumps(dict(chunk.metadata), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` of chunk {chunk.id!r} must be JSON: {error}") from error
    return {**fields, "title_path": list(chunk.title_path), "metadata": metadata}


def from_fields(fields: Mapping[str, Any]) -> Chunk:
    """The chunk that `to_fields` took apart; other fields are ignored."""
    own = {name: fields[name] for name in Chunk.__dataclass_fields__}
    return Chunk(**{**own, "title_path": tuple(own["title_path"]), "metadata": json.loads(own["metadata"])})


def to_meta(identity: EncoderIdentity) -> dict[str, Any]:
    """What a table or collection says of itself."""
    return {"format_version": FORMAT_VERSION, "encoder": asdict(identity)}


def from_meta(meta: Mapping[str, Any] | None, place: str) -> EncoderIdentity:
    """The encoder of the table or collection at `place`. Raises StoreError where ctxkit did not make it."""
    if not meta or "encoder" not in meta:
        raise StoreError(f"{place} was not made by ctxkit. Take another name, and open that with create=True")
    if meta.get("format_version") != FORMAT_VERSION:
        raise IndexMismatch(
            f"{place} has format version {meta.get('format_version')!r}; this ctxkit reads {FORMAT_VERSION}. "
            "Index the documents again under another name"
        )
    return EncoderIdentity(**meta["encoder"])
