"""Index: chunks that can be added, deleted, filtered and searched, kept safely in a folder."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ctxkit.context import Budget, Part, Plan
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexNotFound
from ctxkit.protocols import Counter, Encoder, Vectors
from ctxkit.retrieval.document_text import checked_sources, document_text, text_key
from ctxkit.retrieval.encoders import SentenceTransformerEncoder, encoder_from
from ctxkit.retrieval.engines.choose import EngineOptions
from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions
from ctxkit.retrieval.filters import Where
from ctxkit.retrieval.fusion import Fusion, ScoreFusion
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.multivector.options import BuildOptions, SearchOptions
from ctxkit.retrieval.search import Mode, Request, answer, check_search, refuse_string
from ctxkit.retrieval.snapshot import Snapshot
from ctxkit.retrieval.storage.array_file import FileGone
from ctxkit.retrieval.storage.chunk_rows import chunk_by_id
from ctxkit.retrieval.storage.settings import ENGINES, EncoderIdentity, EngineName, EngineSettings, Settings
from ctxkit.retrieval.storage.state import State
from ctxkit.retrieval.storage.store import FORMAT_VERSION, Store
from ctxkit.retrieval.storage.tables import SOURCES, rows
from ctxkit.retrieval.storage.vector_writer import row_counts
from ctxkit.retrieval.storage.vectors import PART, files_of
from ctxkit.retrieval.storage.writer import Writer
from ctxkit.retrieval.to_budget import retrieve_to_budget

_ENCODED_AT_ONCE = 4096  # texts; bounds the memory that new vectors take
_OPENING_ATTEMPTS = 5

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did. added: chunks written. removed: chunks deleted. encoded: texts whose vectors were computed."""

    added: int = 0
    removed: int = 0
    encoded: int = 0


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index holds.

    vector_rows: of them `dead_rows` belong to no chunk any more, and `coded_rows` are coded. disk_bytes: all its files.
    """

    path: str
    chunks: int
    sources: int
    vector_rows: int
    dead_rows: int
    coded_rows: int
    files: int
    disk_bytes: int
    encoder: str
    engine: str
    multi_vector: bool
    generation: int
    format_version: int


class Index:
    """Chunks in a folder, found again by meaning, by words, or both.

    Open one with `Index.open` or `Index.in_memory`; it is a context manager. May be shared by threads. Any number of
    processes may read while one writes; a search sees every write that was acknowledged before it began, whole.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder | None,
        fusion: Fusion | None = None,
        options: EngineOptions = EngineOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._fusion = fusion or ScoreFusion()
        self._options = options
        self._snapshot = Snapshot(store, options)
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
        engine: EngineName | None = None,
        build: BuildOptions | None = None,
        search: SearchOptions | None = None,
        ann: IvfOptions | HnswOptions | None = None,
        device: str | None = None,
        background: bool = False,
        verify: bool = True,
    ) -> Index:
        """Open the index in the folder `path`.

        encoder: None takes the one the index was made by, and for a new index SentenceTransformerEncoder(). It is
            built when first needed: an index that is only listed or searched lexically loads no model.
        create: make an empty index where there is none.
        fusion: how hybrid search joins its methods; None for the default.
        engine: what searches the vectors, chosen when the index is made: None or "auto" for what suits the encoder,
            "exact", or by name. For one vector per text "flat", "ivf", "hnsw"; for one per token "multivector".
        build: how token vectors are coded; chosen when the index is made. search: how far a search of them looks.
        ann: how "ivf" or "hnsw" is made and searched.
        device: where faiss searches: "cpu", "cuda", None for what is there. Coded token vectors are searched on a GPU
            where "cuda" says so.
        background: code token vectors in a thread of its own instead of in the write that makes it due; a write that
            comes meanwhile waits for it, and so does `close`.
        verify: compare the checksum of every vector file before it is searched, which reads each once.

        Raises IndexNotFound (none there, not `create`), IndexMismatch (another encoder, engine or format), ValueError
        (no such engine) and StoreError (damaged).
        """
        folder = Path(path)
        wanted = EngineSettings(engine or "auto", build or EngineSettings().build)
        if engine is not None and engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {engine!r}")
        try:
            store = Store.open(folder, verify=verify)
        except IndexNotFound:
            if not create:
                raise
            identity = EncoderIdentity.of(encoder or SentenceTransformerEncoder())
            wanted.check(multi_vector=identity.multi_vector)
            store = Store.create(folder, Settings(identity, wanted), verify=verify)
        try:
            if encoder is not None:
                store.settings.encoder.check(encoder, str(folder))
            store.settings.engine.check_same(engine, build, str(folder))
        except BaseException:
            store.close()
            raise
        store.background = background
        return cls(store, encoder, fusion, EngineOptions(search or SearchOptions(), ann, device))

    @classmethod
    def in_memory(
        cls,
        *,
        encoder: Encoder | None = None,
        fusion: Fusion | None = None,
        engine: EngineName | None = None,
        build: BuildOptions | None = None,
        search: SearchOptions | None = None,
    ) -> Index:
        """An index for this process only, in a temporary folder that `close` deletes."""
        temporary = tempfile.TemporaryDirectory(prefix="ctxkit-index-")
        index = cls.open(
            temporary.name, encoder=encoder, create=True, fusion=fusion, engine=engine, build=build, search=search
        )
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
                made_by = self._store.settings.encoder
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
        given = checked_sources(sources)
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
            refuse_string(name, value)
        with self._store.writing() as writer:
            removed = sum(writer.drop_source(source) for source in set(sources or ()))
            removed += writer.drop_chunks(ids or ())
            return Change(removed=removed)

    def compact(self) -> None:
        """Give back the room of all that was deleted; what is coded is joined. Also happens by itself, in time."""
        with self._store.writing() as writer:
            writer.compact()

    def verify(self) -> None:
        """Read everything and compare every checksum. Raises StoreError that names the damaged file."""
        self._store.verify()

    def sources(self) -> dict[str, str]:
        """Indexed sources and the content hash each was indexed at ('' for those that only `add` brought)."""
        with self._store.reading() as connection:
            return dict(rows(connection, SOURCES, "ORDER BY source"))  # type: ignore[arg-type]

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
        where: Where | None = None,
        sources: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The `k` best chunks for `query`, best first; equal scores in order of chunk id.

        mode: "dense" compares vectors, "lexical" words, "hybrid" fuses both. Lexical search finds only chunks that
            share a word with the query; the others rank every chunk, so that k hits come back where k are allowed.
        where: values that a chunk's metadata must have: {"lang": "en", "year": {">=": 2020}, "tag": ["a", "b"]}
            (`source`, `id` and `page` are known too), or a function that keeps a chunk if it returns True, which is
            asked for every chunk. None is for values that are missing; operators keep no chunk where it is. Values
            of different kinds are unequal, and neither is less. Exact: filtering comes before ranking.
        sources: glob patterns; keeps chunks whose source fits one (`*` also crosses slashes).

        Raises ValueError for k below 1, an unknown mode or a malformed `where`.
        """
        check_search(k, mode, where, sources)
        vectors = None if mode == "lexical" or self._holds_nothing() else self.encoder.encode_queries([query])
        request = Request(query, vectors, k, mode, where, sources)
        return self._with_snapshot(lambda snapshot: answer(snapshot, request, self._fusion))

    def context(
        self,
        query: str,
        budget: Budget,
        counter: Counter,
        *,
        arrange: Callable[[Sequence[Part]], Sequence[Part]] = list,
        **options: Any,
    ) -> Plan:
        """The plan of as many passages as pay for their tokens: how many is found, not given.

        arrange: puts the passages, best first, among the other parts of a prompt. options: as `retrieve_to_budget`
        takes them, `mode`, `where` and `sources` among them. Raises StoreError where nothing is found, and
        BudgetInfeasible as `fit`.
        """
        return retrieve_to_budget(self, query, budget, counter, arrange=arrange, **options)

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """The vectors of chunks, as well as the index keeps them. Raises KeyError for an id that is not there."""
        refuse_string("ids", ids)
        return self._with_snapshot(lambda snapshot: snapshot.vectors(snapshot.positions_of(ids)))

    def stats(self) -> IndexStats:
        """Counts and sizes."""
        with self._store.reading() as connection:
            total, dead = row_counts(connection)
            counts = [
                connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in ("chunks", "sources", "files")
            ]
            return IndexStats(
                path=str(self.path),
                chunks=counts[0],
                sources=counts[1],
                vector_rows=total,
                dead_rows=dead,
                coded_rows=sum(file.rows for file in files_of(connection, PART)),
                files=counts[2],
                disk_bytes=self._store.bytes(),
                encoder=self._store.settings.encoder.name,
                engine=self._store.settings.engine.name,
                multi_vector=self._store.settings.encoder.multi_vector,
                generation=State.read(connection).generation,
                format_version=FORMAT_VERSION,
            )

    def close(self) -> None:
        """Close the files; any later call raises StoreError. Closing twice is fine."""
        self._store.close()
        self._snapshot = Snapshot(self._store, self._options)
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
        return f"Index({str(self.path)!r}, encoder={self._store.settings.encoder.name!r})"

    def _put(self, writer: Writer, chunks: list[Chunk], progress: bool) -> Change:
        chunks = list({chunk.id: chunk for chunk in chunks}.values())
        texts = {text_key(text): text for text in map(document_text, chunks)}
        missing = writer.missing(texts)
        for start in range(0, len(missing), _ENCODED_AT_ONCE):
            keys = missing[start : start + _ENCODED_AT_ONCE]
            writer.put_vectors(keys, self.encoder.encode_documents([texts[key] for key in keys], progress=progress))
        writer.put_chunks(chunks, [text_key(document_text(chunk)) for chunk in chunks])
        return Change(added=len(chunks), encoded=len(missing))

    def _with_snapshot(self, work: Callable[[Snapshot], Found]) -> Found:
        """What `work` makes of the state that is committed now."""
        attempt = 0
        while True:
            attempt += 1
            with self._store.reading() as connection:
                known = State.read(connection).generation
                try:
                    self._snapshot.refresh(connection)
                    return work(self._snapshot)
                except FileGone as error:
                    if attempt == _OPENING_ATTEMPTS:
                        raise
                    gone = error
            if self._generation() == known:  # no writer retired the file while it was being opened: it is lost
                raise gone

    def _holds_nothing(self) -> bool:
        with self._store.reading() as connection:
            return connection.execute("SELECT 1 FROM chunks LIMIT 1").fetchone() is None

    def _generation(self) -> int:
        with self._store.reading() as connection:
            return State.read(connection).generation
