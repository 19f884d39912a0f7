"""Merge: many indexes, each of other documents, become one. Nothing is encoded again."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, Self

from tqdm.auto import tqdm

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import StoreError
from ctxkit.protocols import Encoder, Vectors
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.encoders.token_vectors import Rows, joined
from ctxkit.retrieval.encoders.wrapped import WrappedEncoder
from ctxkit.retrieval.index import Index
from ctxkit.retrieval.searchable import Writable
from ctxkit.retrieval.storage.chunk_rows import chunk_of
from ctxkit.retrieval.storage.store import Store
from ctxkit.retrieval.storage.tables import CHUNKS, SOURCES, rows
from ctxkit.retrieval.storage.vectors import PART, blocks_of, files_of, spans_of

_CHUNKS_AT_ONCE = 4096  # of a write; bounds the memory that their vectors take


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did, in sources: `written`, `unchanged` and `removed`; `chunks` is how many were written."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0


class Target(Writable, Protocol):
    """An index that is written and closed: `Index`, or that of a vector database."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def merge(
    shards: Iterable[str | Path],
    open_target: Callable[[Encoder], Target],
    *,
    encoder: Encoder | None = None,
    remove_others: bool = False,
    progress: bool = False,
) -> Merged:
    """Bring an index up to date with all sources of `shards`, whose vectors it takes.

    It then answers as one that was made of all documents at once. A source whose content hash is there already is
    passed over, so that the same call may be made again after an error, and costs little where little has changed.

    shards: folders of indexes, at least one, made with the engine "exact" or "flat": others keep coded vectors.
    open_target: opens the index with the encoder that it is given, such as
        `lambda encoder: Index.open("whole", encoder=encoder, create=True)`. It is closed at the end.
    encoder: what made the shards; None takes what the first one names. It encodes nothing.
    remove_others: delete the sources that no shard has.
    progress: a bar of sources on stderr.

    Raises IndexMismatch where encoders differ, StoreError for coded vectors or a source that two shards have.
    """
    folders = [Path(shard) for shard in shards]
    if not folders:
        raise ValueError("`shards` must name at least one index")
    stored = StoredVectors(encoder or _encoder_of(folders[0]))
    hashes = _hashes(folders, stored.wrapped)
    with open_target(stored) as target:
        known = target.sources()
        sources = [name for own in hashes.values() for name in own]
        new = {folder: [name for name in own if known.get(name) != own[name]] for folder, own in hashes.items()}
        chunks = 0
        with _bar(sum(map(len, new.values())), progress) as bar:
            for folder, names in new.items():
                for batch in _batches(folder, names, stored):
                    target.replace_sources((name, hashes[folder][name], of_source) for name, of_source in batch)
                    chunks += sum(len(of_source) for _, of_source in batch)
                    bar.update(len(batch))
        gone = sorted(known.keys() - set(sources)) if remove_others else []
        if gone:
            target.delete(sources=gone)
    written = sum(map(len, new.values()))
    return Merged(written, len(sources) - written, len(gone), chunks)


class StoredVectors(WrappedEncoder):
    """An encoder that gives, for documents, the vectors that it was handed before. known: by text."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.known: dict[str, Rows] = {}

    @property
    def wrapped(self) -> Encoder:
        """The encoder that made the vectors."""
        return self._encoder

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """The vectors of `texts`, all of which are known."""
        return joined([self.known[text] for text in texts], self.dims)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_queries(texts)


def _encoder_of(folder: Path) -> Encoder:
    with Index.open(folder) as index:
        return index.encoder


def _hashes(folders: Sequence[Path], encoder: Encoder) -> dict[Path, dict[str, str]]:
    """The sources of each shard with their content hashes."""
    hashes: dict[Path, dict[str, str]] = {}
    owners: dict[str, Path] = {}
    for folder in folders:
        with _opened(folder) as (store, connection):
            store.settings.encoder.check(encoder, str(folder))
            if files_of(connection, PART):
                raise StoreError(f"{folder} keeps coded vectors. Make shards with engine='exact'")
            hashes[folder] = dict(rows(connection, SOURCES, "ORDER BY source"))  # type: ignore[arg-type]
        for name in hashes[folder]:
            if owners.setdefault(name, folder) != folder:
                raise StoreError(f"source {name!r} is in {owners[name]} and in {folder}. Delete it from one of them")
    return hashes


def _batches(folder: Path, sources: Sequence[str], stored: StoredVectors) -> Iterator[list[tuple[str, list[Chunk]]]]:
    """Sources with their chunks, some at a time, whose vectors `stored` knows meanwhile."""
    if not sources:
        return
    with _opened(folder) as (store, connection):
        batch: list[tuple[str, list[Chunk]]] = []
        for name in sources:
            batch.append((name, _chunks(store, connection, name, stored)))
            if sum(len(chunks) for _, chunks in batch) >= _CHUNKS_AT_ONCE:
                yield batch
                batch = []
                stored.known.clear()
        if batch:
            yield batch
        stored.known.clear()


def _chunks(store: Store, connection: sqlite3.Connection, source: str, stored: StoredVectors) -> list[Chunk]:
    """The chunks of a source in the order they were added; hands their vectors to `stored`."""
    found = list(rows(connection, CHUNKS, "WHERE source = ? ORDER BY slot", (source,)))
    chunks, numbers = [chunk_of(row) for row in found], [int(row[-1] or 0) for row in found]
    for chunk, number, block in zip(chunks, numbers, blocks_of(connection, store.files, numbers), strict=True):
        spans = spans_of(connection, number)
        stored.known[document_text(chunk)] = Rows(block.vectors.values, block.token_ids, spans)
    return chunks


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Store, sqlite3.Connection]]:
    store = Store.open(folder)
    try:
        with store.reading() as connection:
            yield store, connection
    finally:
        store.close()


def _bar(total: int, progress: bool) -> tqdm[NoReturn]:
    return tqdm(total=total, desc="merging", unit="source", disable=not progress, file=sys.stderr)
