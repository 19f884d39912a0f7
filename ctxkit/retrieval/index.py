"""Index: chunks that can be added, deleted, filtered and searched, kept safely in a folder."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexNotFound
from ctxkit.protocols import Encoder
from ctxkit.retrieval.encoders import SentenceTransformerEncoder, encoder_from
from ctxkit.retrieval.fusion import Fusion, ScoreFusion
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.search import MODES, Mode, Request, answer
from ctxkit.retrieval.segments import SegmentGone
from ctxkit.retrieval.snapshot import Snapshot, chunk_by_id
from ctxkit.retrieval.store import FORMAT_VERSION, Store, generation
from ctxkit.retrieval.writer import Writer, row_counts

_ENCODED_AT_ONCE = 4096  # texts; bounds the memory that new vectors take
_OPENING_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did. added: chunks written. removed: chunks deleted. encoded: texts whose vectors were computed."""

    added: int = 0
    removed: int = 0
    encoded: int = 0


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index holds. `dead_rows` of `vector_rows` belong to no chunk any more; `disk_bytes` is all its files."""

    path: str
    chunks: int
    sources: int
    vector_rows: int
    dead_rows: int
    segments: int
    disk_bytes: int
    encoder: str
    multi_vector: bool
    generation: int
    format_version: int


class Index:
    """Chunks in a folder, found again by meaning, by words, or both.

    Open one with `Index.open` or `Index.in_memory`; it is a context manager. May be shared by threads. Any number of
    processes may read while one writes; a search sees every write that was acknowledged before it began, whole.
    """

    def __init__(self, store: Store, encoder: Encoder | None, fusion: Fusion | None = None) -> None:
        self._store = store
        self._encoder = encoder
        self._fusion = fusion or ScoreFusion()
        self._snapshot: Snapshot | None = None
        self._making = threading.Lock()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        create: bool = False,
        fusion: Fusion | None = None,
    ) -> Index:
        """Open the index in the folder `path`.

        encoder: None takes the one the index was made by, and for a new index SentenceTransformerEncoder(). It is
            built when first needed: an index that is only listed or searched lexically loads no model.
        create: make an empty index where there is none.
        fusion: how hybrid search joins its methods; None for the default.

        Raises IndexNotFound (none there, not `create`), IndexMismatch (another encoder or format) and StoreError
        (damaged).
        """
        folder = Path(path)
        try:
            store = Store.open(folder)
        except IndexNotFound:
            if not create:
                raise
            store = Store.create(folder, encoder or SentenceTransformerEncoder())
        if encoder is not None:
            try:
                store.identity.check(encoder, str(folder))
            except BaseException:
                store.close()
                raise
        return cls(store, encoder, fusion)

    @classmethod
    def in_memory(cls, *, encoder: Encoder | None = None, fusion: Fusion | None = None) -> Index:
        """An index for this process only, in a temporary folder that `close` deletes."""
        temporary = tempfile.TemporaryDirectory(prefix="ctxkit-index-")
        index = cls.open(temporary.name, encoder=encoder, create=True, fusion=fusion)
        index._temporary = temporary
        return index

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.folder

    @property
    def encoder(self) -> Encoder:
        """What makes the vectors; built now if it was not yet. Raises IndexMismatch if it has changed since."""
        with self._making:
            if self._encoder is None:
                made_by = self._store.identity
                encoder = encoder_from(made_by.class_name, made_by.name, multi_vector=made_by.multi_vector)
                made_by.check(encoder, str(self.path))
                self._encoder = encoder
            return self._encoder

    def add(self, chunks: Iterable[Chunk], *, progress: bool = False) -> Change:
        """Add chunks, or replace those of equal id, in one transaction. `progress` shows a bar on stderr.

        Texts that the index has vectors for are not encoded again. Once this returns, the chunks survive a crash.
        Raises IndexLocked while another writer is at work.
        """
        with self._store.writing() as writer:
            return self._put(writer, list(chunks), progress)

    def replace_source(
        self, source: str, content_hash: str, chunks: Iterable[Chunk], *, progress: bool = False
    ) -> Change:
        """Make `chunks` the only chunks of `source`, and remember `content_hash` for it, in one transaction.

        Only texts that are new are encoded. Raises ValueError for a chunk of another source, else as `add`.
        """
        return self.replace_sources([(source, content_hash, chunks)], progress=progress)

    def replace_sources(self, sources: Iterable[tuple[str, str, Iterable[Chunk]]], *, progress: bool = False) -> Change:
        """`replace_source` for several (source, content hash, chunks) in one transaction: full encoder batches."""
        given = [(source, content_hash, list(chunks)) for source, content_hash, chunks in sources]
        for source, _, chunks in given:
            for chunk in chunks:
                if chunk.source != source:
                    raise ValueError(f"chunk {chunk.id!r} is of source {chunk.source!r}, expected {source!r}")
        with self._store.writing() as writer:
            gone: set[str] = set()
            for source, _, chunks in given:
                gone |= writer.ids_of(source) - {chunk.id for chunk in chunks}
            writer.drop_chunks(gone)
            change = self._put(writer, [chunk for _, _, chunks in given for chunk in chunks], progress)
            for source, content_hash, _ in given:
                writer.put_source(source, content_hash)
            return Change(change.added, len(gone), change.encoded)

    def delete(self, *, sources: Iterable[str] | None = None, ids: Iterable[str] | None = None) -> Change:
        """Delete whole sources (exact names) or single chunks (ids) in one transaction. Unknown ones are no error."""
        if sources is None and ids is None:
            raise ValueError("say what to delete: `sources` or `ids`")
        for name, value in (("sources", sources), ("ids", ids)):
            _refuse_str(name, value)
        with self._store.writing() as writer:
            removed = sum(writer.drop_source(source) for source in set(sources or ()))
            removed += writer.drop_chunks(ids or ())
            writer.compact_if_sparse()
            return Change(removed=removed)

    def sources(self) -> dict[str, str]:
        """Indexed sources and the content hash each was indexed at ('' for those that only `add` brought)."""
        with self._store.reading() as connection:
            return dict(connection.execute("SELECT source, content_hash FROM sources ORDER BY source").fetchall())

    def get(self, id_: str) -> Chunk | None:
        """The chunk of that id, None where there is none."""
        with self._store.reading() as connection:
            return chunk_by_id(connection, id_)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        where: Callable[[Chunk], bool] | None = None,
        sources: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The `k` best chunks for `query`, best first; equal scores in order of chunk id.

        mode: "dense" compares vectors, "lexical" words, "hybrid" fuses both. Lexical search finds only chunks that
            share a word with the query; the others rank every chunk, so that k hits come back where k are allowed.
        where: keeps a chunk if it returns True. Exact: filtering comes before ranking.
        sources: glob patterns; keeps chunks whose source fits one (`*` also crosses slashes).

        Raises ValueError for k below 1 or an unknown mode.
        """
        if k < 1:
            raise ValueError(f"`k` must be at least 1, got {k!r}")
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}")
        _refuse_str("sources", sources)
        vector = None if mode == "lexical" or not len(self) else self._encode_query(query)
        request = Request(query, vector, k, mode, where, sources)
        for _ in range(_OPENING_ATTEMPTS):
            known = self._generation()
            try:
                return self._search(request)
            except SegmentGone:  # a writer joined or compacted segments while they were being opened
                self._snapshot = None
                if self._generation() == known:
                    raise
        return self._search(request)

    def stats(self) -> IndexStats:
        """Counts and sizes."""
        with self._store.reading() as connection:
            total, dead = row_counts(connection)
            counts = [
                connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in ("chunks", "sources", "segments")
            ]
            return IndexStats(
                path=str(self.path),
                chunks=counts[0],
                sources=counts[1],
                vector_rows=total,
                dead_rows=dead,
                segments=counts[2],
                disk_bytes=self._store.bytes(),
                encoder=self._store.identity.name,
                multi_vector=self._store.identity.multi_vector,
                generation=generation(connection),
                format_version=FORMAT_VERSION,
            )

    def close(self) -> None:
        """Close the files; any later call raises StoreError. Closing twice is fine."""
        self._store.close()
        self._snapshot = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def __len__(self) -> int:
        with self._store.reading() as connection:
            return connection.execute("SELECT COUNT(*) FROM chunks").fetchone()[0]

    def __bool__(self) -> bool:
        return True  # an empty index is still an index

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, encoder={self._store.identity.name!r})"

    def _put(self, writer: Writer, chunks: list[Chunk], progress: bool) -> Change:
        chunks = list({chunk.id: chunk for chunk in chunks}.values())
        texts = {text_key(text): text for text in map(document_text, chunks)}
        missing = writer.missing(texts)
        for start in range(0, len(missing), _ENCODED_AT_ONCE):
            keys = missing[start : start + _ENCODED_AT_ONCE]
            writer.put_vectors(keys, self.encoder.encode_documents([texts[key] for key in keys], progress=progress))
        writer.put_chunks(chunks, [text_key(document_text(chunk)) for chunk in chunks])
        writer.compact_if_sparse()
        return Change(added=len(chunks), encoded=len(missing))

    def _encode_query(self, query: str) -> np.ndarray:
        return self.encoder.encode_queries([query])[0]

    def _search(self, request: Request) -> list[Hit]:
        with self._store.reading() as connection:
            return answer(self._current(connection), request, self._fusion)

    def _current(self, connection: sqlite3.Connection) -> Snapshot:
        if self._snapshot is None or self._snapshot.generation != generation(connection):
            self._snapshot = Snapshot(self._store, connection)
        return self._snapshot

    def _generation(self) -> int:
        with self._store.reading() as connection:
            return generation(connection)


def document_text(chunk: Chunk) -> str:
    """What is encoded for a chunk: its headings, then its text."""
    return "\n".join((" > ".join(chunk.title_path), chunk.text)) if chunk.title_path else chunk.text


def text_key(text: str) -> str:
    """Names a text by its content, so that equal texts share their vectors."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _refuse_str(name: str, value: object) -> None:
    if isinstance(value, str):
        raise ValueError(f"`{name}` must be a list of names, got the single string {value!r}")
