"""VectorView: the vectors of an index, as its engine searches them, and which chunks they belong to."""

from __future__ import annotations

import sqlite3

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.catalog import Catalog
from ctxkit.retrieval.engines import kept
from ctxkit.retrieval.engines.base import Engine
from ctxkit.retrieval.engines.choose import EngineOptions, engine_for, restored, states_of, takes_long
from ctxkit.retrieval.engines.late_interaction import LateInteractionEngine
from ctxkit.retrieval.fusion import Run
from ctxkit.retrieval.growing import Growing
from ctxkit.retrieval.storage.store import Store
from ctxkit.retrieval.storage.vectors import Block, coded, uncoded, vectors_of

_NONE = -1
_GROWN = 1.25  # times what is kept: keep it anew


class VectorView:
    """Documents of one epoch in an engine. A chunk belongs to one document; equal texts share theirs.

    epoch: of the store's state; after another one, another view is needed.
    """

    def __init__(self, store: Store, connection: sqlite3.Connection, epoch: int, options: EngineOptions) -> None:
        self.epoch = epoch
        self._store = store
        self._options = options
        self._engine: Engine | None = None  # as long as there are no documents
        self._numbers = Growing(np.int64)  # of documents, rising
        self._chunks = Growing(np.int64)  # a living chunk of each document, or -1
        self._others: dict[int, list[int]] = {}  # document -> its further living chunks
        self._documents = Growing(np.int64)  # of each chunk, the position of its document
        self._unowned = 0  # documents without a living chunk
        self._kept = 0  # documents of the engine that lies beside the index
        found = coded(connection, store.files)
        if found is not None:
            index, numbers = found
            self._engine = engine_for(store.settings, index.dims, options, index)
            self._take(numbers)
        elif takes_long(store.settings):
            self._restore(connection)

    def refresh(self, connection: sqlite3.Connection, catalog: Catalog, removed: np.ndarray) -> None:
        """Take in what was written since. removed: positions of chunks that are gone since."""
        last = int(self._numbers.values[-1]) if len(self._numbers) else 0
        for block in uncoded(connection, self._store.files, last):
            self._add(block)
        self._unlink(removed[removed < len(self._documents)])
        self._link(catalog)
        if self._engine is not None and takes_long(self._store.settings) and len(self._engine) > _GROWN * self._kept:
            self._keep(self._engine)

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None) -> Run:
        """The best `depth` of the living chunks, and ties of the last. allowed: bool [chunks], None for all of them."""
        if self._engine is None:
            return Run.empty()
        asked = query if self._store.settings.encoder.multi_vector else query[:1]
        run = self._engine.search(asked, depth, self._allowed_documents(allowed))
        return self._of_chunks(run, allowed)

    def vectors(self, connection: sqlite3.Connection, chunks: np.ndarray) -> Vectors:
        """The vectors of chunks, as well as the index knows them."""
        documents = self._documents.values[chunks]
        if isinstance(self._engine, LateInteractionEngine):
            return self._engine.vectors(documents)
        return vectors_of(connection, self._store.files, self._numbers.values[documents])

    def _restore(self, connection: sqlite3.Connection) -> None:
        """Take the engine that was kept, where its documents are still the first ones of the index."""
        settings = self._store.settings
        found = kept.load(self._store.folder, settings.engine.name)
        if found is None:
            return
        numbers, states = found
        query = "SELECT number FROM documents ORDER BY number LIMIT ?"
        known = [number for (number,) in connection.execute(query, (len(numbers),))]
        if known == numbers.tolist():
            self._engine = restored(settings, self._options, states)
            self._take(numbers)
            self._kept = len(numbers)

    def _keep(self, engine: Engine) -> None:
        kept.save(self._store.folder, self._store.settings.engine.name, self._numbers.values, states_of(engine))
        self._kept = len(engine)

    def _add(self, block: Block) -> None:
        if self._engine is None:
            self._engine = engine_for(self._store.settings, block.vectors.values.shape[1], self._options, None)
        self._engine.add(block.vectors)
        self._take(block.numbers)

    def _take(self, numbers: np.ndarray) -> None:
        self._numbers.extend(numbers)
        self._chunks.extend(np.full(len(numbers), _NONE))
        self._unowned += len(numbers)

    def _link(self, catalog: Catalog) -> None:
        """Chunks that the view does not know yet own their documents."""
        first = len(self._documents)
        numbers = catalog.documents[first:]
        documents = np.searchsorted(self._numbers.values, numbers)
        known = documents < len(self._numbers)
        known[known] = self._numbers.values[documents[known]] == numbers[known]
        alive = catalog.live[first:]
        if not known[alive].all():
            raise StoreError(f"{self._store.folder}: a chunk has no vectors. Index the folder again")
        self._documents.extend(documents)
        own = np.flatnonzero(alive)
        chosen, places = np.unique(documents[own], return_index=True)
        free = self._chunks.values[chosen] == _NONE
        self._chunks.values[chosen[free]] = own[places[free]] + first
        self._unowned -= int(free.sum())
        for position in np.setdiff1d(own, own[places[free]]).tolist():
            self._others.setdefault(int(documents[position]), []).append(position + first)

    def _unlink(self, chunks: np.ndarray) -> None:
        for chunk in chunks.tolist():
            document = int(self._documents.values[chunk])
            others = self._others.get(document, [])
            if chunk in others:
                others.remove(chunk)
            elif others:
                self._chunks.values[document] = others.pop()
            else:
                self._chunks.values[document] = _NONE
                self._unowned += 1
            if not others:
                self._others.pop(document, None)

    def _allowed_documents(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """bool [documents], those with an allowed chunk; None where all have one."""
        if allowed is not None:
            mask = np.zeros(len(self._numbers), bool)
            mask[self._documents.values[allowed]] = True
            return mask
        return self._chunks.values != _NONE if self._unowned else None

    def _of_chunks(self, run: Run, allowed: np.ndarray | None) -> Run:
        if not self._others:
            return Run(self._chunks.values[run.positions], run.scores)
        chunks, scores = [], []
        for document, score in zip(run.positions.tolist(), run.scores.tolist(), strict=True):
            own = [int(self._chunks.values[document]), *self._others.get(document, ())]
            kept = sorted(chunk for chunk in own if allowed is None or allowed[chunk])
            chunks += kept
            scores += [score] * len(kept)
        return Run(np.array(chunks, np.int64), np.array(scores, np.float64))
