"""DatabaseIndex: what `ctxkit.retrieval.Index` can do, over a vector database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Generic, Self, TypeVar

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexNotFound, StoreError
from ctxkit.protocols import Encoder
from ctxkit.retrieval.document_text import checked_sources, document_terms, document_text, text_key
from ctxkit.retrieval.encoders import SentenceTransformerEncoder, encoder_from
from ctxkit.retrieval.filters import Where
from ctxkit.retrieval.fusion import Fusion, ScoreFusion
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.index import Change
from ctxkit.retrieval.search import Mode, Request, check_search, refuse_string
from ctxkit_connectors.databases.database import Database, Row
from ctxkit_connectors.databases.search import DatabaseSearch

_CHUNKS_AT_ONCE = 1024  # of `add`; bounds the memory that new vectors take

D = TypeVar("D", bound=Database)


class DatabaseIndex(Generic[D]):
    """Chunks in a database, found again by meaning, by words, or both.

    The members are those of `ctxkit.retrieval.Index`, so that `ingest`, `Pipeline`, `retrieve_to_budget`, `reranked`
    and `ClusteredRag` take it in its place. A context manager.
    """

    def __init__(self, database: D, encoder: Encoder | None, fusion: Fusion | None = None, *, exact: bool = False):
        self._database = database
        self._encoder = encoder
        self._fusion = fusion or ScoreFusion()
        self._exact = exact
        self._making = threading.Lock()

    @property
    def path(self) -> str:
        """Where it is: a folder or a URL."""
        return self._database.place

    @property
    def encoder(self) -> Encoder:
        """What makes the vectors; built now if it was not yet. Raises IndexMismatch if it has changed since."""
        with self._making:
            if self._encoder is None:
                made_by = self._database.identity
                encoder = encoder_from(made_by.class_name, made_by.name, multi_vector=made_by.multi_vector)
                made_by.check(encoder, self.path)
                self._encoder = encoder
            return self._encoder

    def add(self, chunks: Iterable[Chunk], *, progress: bool = False) -> Change:
        """Add chunks, or replace those of equal id. `progress` shows a bar on stderr.

        Texts that the database has vectors for are not encoded again. Many chunks go in several writes: after an error
        some are there, and the same call may be made again.
        """
        given = list({chunk.id: chunk for chunk in chunks}.values())
        encoded = 0
        for start in range(0, len(given), _CHUNKS_AT_ONCE):
            rows, new = self._rows(given[start : start + _CHUNKS_AT_ONCE], progress)
            names = {row.chunk.source for row in rows}
            known = self._database.sources(names)
            self._database.upsert(rows, dict.fromkeys(sorted(names - known.keys()), ""))
            encoded += new
        return Change(added=len(given), encoded=encoded)

    def replace_source(
        self, source: str, content_hash: str, chunks: Iterable[Chunk], *, progress: bool = False
    ) -> Change:
        """Make `chunks` the only chunks of `source`, and remember `content_hash` for it.

        Only texts that are new are encoded. Raises ValueError for a chunk of another source.
        """
        return self.replace_sources([(source, content_hash, chunks)], progress=progress)

    def replace_sources(self, sources: Iterable[tuple[str, str, Iterable[Chunk]]], *, progress: bool = False) -> Change:
        """`replace_source` for several (source, content hash, chunks) in one write: full encoder batches."""
        given = checked_sources(sources)
        if not given:
            return Change()
        unique = {chunk.id: chunk for _, _, chunks in given for chunk in chunks}
        rows, encoded = self._rows(list(unique.values()), progress)
        removed = self._database.replace(rows, {source: content_hash for source, content_hash, _ in given})
        return Change(len(rows), removed, encoded)

    def delete(self, *, sources: Iterable[str] | None = None, ids: Iterable[str] | None = None) -> Change:
        """Delete whole sources (exact names) or single chunks (ids). Unknown ones are no error."""
        if sources is None and ids is None:
            raise ValueError("say what to delete: `sources` or `ids`")
        for name, value in (("sources", sources), ("ids", ids)):
            refuse_string(name, value)
        named, single = sorted(set(sources or ())), sorted(set(ids or ()))
        return Change(removed=self._database.delete(named, single) if named or single else 0)

    def sources(self) -> dict[str, str]:
        """Indexed sources and the content hash each was indexed at ('' for those that only `add` brought)."""
        return dict(sorted(self._database.sources().items()))

    def get(self, id_: str) -> Chunk | None:
        """The chunk of that id, None where there is none."""
        return self._database.chunks([id_]).get(id_)

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

        mode: "dense" compares vectors, "lexical" words, "hybrid" fuses both.
        where: as `Index.search` takes it. Exact, and run here: a filter that few chunks pass makes the database
            hand over many.
        sources: glob patterns; keeps chunks whose source fits one (`*` also crosses slashes). Exact, and run there.

        Raises ValueError for k below 1 or an unknown mode, and StoreError where the database fails.
        """
        check_search(k, mode, where, sources)
        names = None if sources is None else self._named(sources)
        if names == []:
            return []
        vectors = None if mode == "lexical" else self.encoder.encode_queries([query])
        request = Request(query, vectors, k, mode, where, names)
        return DatabaseSearch(self._database, request, self._exact).hits(self._fusion)

    def close(self) -> None:
        """Let go of the database; any later call raises StoreError. Closing twice is fine."""
        self._database.close()

    def __len__(self) -> int:
        return self._database.count()

    def __bool__(self) -> bool:
        return True  # an empty index is still an index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, encoder={self._database.identity.name!r})"

    def _named(self, globs: Sequence[str]) -> list[str]:
        """The recorded sources that fit; what holds no pattern needs no look."""
        plain = {glob for glob in globs if not any(mark in glob for mark in "*?[")}
        patterns = [glob for glob in globs if glob not in plain]
        recorded = self._database.sources() if patterns else {}
        return sorted(plain.union(name for name in recorded if any(fnmatchcase(name, glob) for glob in patterns)))

    def _rows(self, chunks: Sequence[Chunk], progress: bool) -> tuple[list[Row], int]:
        """The chunks as they are stored, and for how many texts vectors were made."""
        keys = [text_key(document_text(chunk)) for chunk in chunks]
        texts = {key: document_text(chunk) for key, chunk in zip(keys, chunks, strict=True)}
        vectors = self._database.vectors(texts) if texts else {}
        new = [key for key in texts if key not in vectors]
        if new:
            vectors.update(zip(new, self._encoded([texts[key] for key in new], progress), strict=True))
        rows = [Row(chunk, key, document_terms(chunk), vectors[key]) for chunk, key in zip(chunks, keys, strict=True)]
        return rows, len(new)

    def _encoded(self, texts: Sequence[str], progress: bool) -> Iterator[np.ndarray]:
        vectors = self.encoder.encode_documents(texts, progress=progress)
        if len(vectors) != len(texts) or not np.diff(vectors.offsets).all():
            raise StoreError(f"the encoder returned vectors of {len(vectors)} texts for {len(texts)}, or none for one")
        return (np.asarray(vectors[i], np.float32) for i in range(len(texts)))


def opened(open_: Callable[[], D], make: Callable[[Encoder], D], encoder: Encoder | None, create: bool) -> D:
    """What `open_` finds, or where there is nothing and `create` allows it, what `make` makes.

    Raises IndexNotFound, and IndexMismatch where another encoder made it.
    """
    try:
        database = open_()
    except IndexNotFound:
        if not create:
            raise
        database = make(encoder or SentenceTransformerEncoder())
    if encoder is not None:
        database.identity.check(encoder, database.place)
    return database
