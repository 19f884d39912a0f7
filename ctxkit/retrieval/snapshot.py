"""Snapshot: what searches need of an index in memory, kept up with its writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.catalog import Catalog, changed_since
from ctxkit.retrieval.engines.choose import EngineOptions
from ctxkit.retrieval.filters import Bitmaps, Where, key_of, slots_where
from ctxkit.retrieval.fusion import Run
from ctxkit.retrieval.lexical import LexicalIndex
from ctxkit.retrieval.storage.chunk_rows import chunk_of, chunks_by_slot
from ctxkit.retrieval.storage.state import State
from ctxkit.retrieval.storage.store import Store
from ctxkit.retrieval.storage.tables import CHUNKS, DATABASE, rows
from ctxkit.retrieval.storage.vectors import spans_of
from ctxkit.retrieval.vector_view import VectorView

_CROWDED = 1024  # places of chunks that are gone, and more than those of chunks that are there: read all anew


class Snapshot:
    """One generation of an index. `refresh` takes in what was written since, and costs what that is.

    Words and vectors are read when first searched. Ask inside `store.reading()`, after `refresh`.
    """

    def __init__(self, store: Store, options: EngineOptions) -> None:
        self._store = store
        self._options = options
        self._forget()

    def _forget(self) -> None:
        self.generation = 0
        self.catalog = Catalog()
        self._lexical: LexicalIndex | None = None
        self._view: VectorView | None = None
        self._bitmaps = Bitmaps()
        self._chunks: list[Chunk | None] = []

    def __len__(self) -> int:
        """Chunks that are there."""
        return self.catalog.live_chunks

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Become the snapshot of the state that `connection` sees."""
        self._connection = connection
        state = State.read(connection)
        if state.generation == self.generation:
            return
        try:
            self._take_in(state, connection)
        except BaseException:  # it may be half of this state and half of the one before
            self._forget()
            raise

    def _take_in(self, state: State, connection: sqlite3.Connection) -> None:
        gone = len(self.catalog) - len(self)
        if state.floor > self.generation or state.generation < self.generation or gone > max(_CROWDED, len(self)):
            self._forget()
        new, deleted = changed_since(connection, self.generation)
        terms = self.catalog.add(new)
        removed = self.catalog.remove(deleted)
        if self._lexical is not None:
            self._lexical.add(terms)
            self._lexical.remove(removed)
        if self._view is not None and self._view.epoch != state.epoch:
            self._view = None
        if self._view is not None:
            self._view.refresh(connection, self.catalog, removed)
        self.generation = state.generation

    @property
    def lexical(self) -> LexicalIndex:
        """Searches the words of titles and texts, by position."""
        if self._lexical is None:
            lexical = LexicalIndex()
            terms: list[list[str]] = [[] for _ in range(len(self.catalog))]
            slots = self.catalog.slots
            for slot, words in self._connection.execute("SELECT slot, terms FROM chunks ORDER BY slot"):
                terms[int(np.searchsorted(slots, slot))] = words.split(" ") if words else []
            lexical.add(terms)
            lexical.remove(np.flatnonzero(~self.catalog.live))
            self._lexical = lexical
        return self._lexical

    @property
    def view(self) -> VectorView:
        """Searches the vectors, by position."""
        if self._view is None:
            epoch = State.read(self._connection).epoch
            view = VectorView(self._store, self._connection, epoch, self._options)
            view.refresh(self._connection, self.catalog, np.zeros(0, np.int64))
            self._view = view
        return self._view

    def chunks(self, positions: Sequence[int]) -> list[Chunk]:
        """The chunks at these positions."""
        slots = [int(self.catalog.slots[position]) for position in positions]
        found = chunks_by_slot(self._connection, slots)
        if len(found) < len(set(slots)):
            lost = next(slot for slot in slots if slot not in found)
            raise StoreError(f"{self._store.folder}: chunk {lost} is gone from the index. Index the folder again")
        return [found[slot] for slot in slots]

    def positions_of(self, ids: Sequence[str]) -> np.ndarray:
        """Positions of living chunks by their ids; KeyError for one that is not there."""
        query = "SELECT slot FROM chunks WHERE id = ?"
        slots = [self._connection.execute(query, (id_,)).fetchone() for id_ in ids]
        missing = [id_ for id_, slot in zip(ids, slots, strict=True) if slot is None]
        if missing:
            raise KeyError(missing[0])
        positions = np.searchsorted(self.catalog.slots, np.array([slot[0] for slot in slots], np.int64))
        if (positions == len(self.catalog)).any() or [self.catalog.ids[p] for p in positions.tolist()] != list(ids):
            raise StoreError(
                f"{self._store.folder / DATABASE}: damaged: ids lead to other chunks. Index the folder again"
            )
        return positions

    def vectors(self, positions: np.ndarray) -> Vectors:
        """The vectors of chunks, as well as the index knows them."""
        return self.view.vectors(self._connection, positions)

    def spans(self, positions: np.ndarray) -> list[np.ndarray | None]:
        """Where the rows of chunks stand in what was indexed of them, int64 [rows, 2] each, where that is known."""
        return [spans_of(self._connection, number) for number in self.catalog.documents[positions].tolist()]

    @property
    def multi_vector(self) -> bool:
        return self._store.settings.encoder.multi_vector

    def allowed(self, where: Where | None, sources: Sequence[str] | None) -> np.ndarray | None:
        """Which living positions pass both filters, bool [len(catalog)]; None where there is no filter."""
        if where is None and sources is None:
            return None
        mask, length = self.catalog.live.copy(), len(self.catalog)
        if sources is not None:
            globs = tuple(sources)
            mask &= self._bitmaps.get(f"sources {globs!r}", length, partial(self.catalog.of_sources, globs))
        if isinstance(where, Mapping):
            mask &= self._bitmaps.get(f"where {key_of(where)}", length, partial(self._where, where))
        elif where is not None:
            self._filter(mask, where)
        return mask

    def _where(self, where: Mapping[str, object], first: int) -> np.ndarray:
        """bool, of each position from `first` on whether it meets the conditions."""
        slots = self.catalog.slots
        after = int(slots[first - 1]) if first else 0
        found = np.zeros(len(slots) - first, bool)
        found[np.searchsorted(slots, slots_where(self._connection, where, after)) - first] = True
        return found

    def _filter(self, mask: np.ndarray, where: Callable[[Chunk], bool]) -> None:
        known = len(self._chunks)
        new: list[Chunk | None] = [None] * (len(self.catalog) - known)
        after = int(self.catalog.slots[known - 1]) if known else 0
        for row in rows(self._connection, CHUNKS, "WHERE slot > ? ORDER BY slot", (after,)):
            new[int(np.searchsorted(self.catalog.slots, int(row[0] or 0))) - known] = chunk_of(row)
        self._chunks += new
        for position in np.flatnonzero(mask).tolist():
            chunk = self._chunks[position]
            mask[position] = chunk is not None and bool(where(chunk))

    def ordered(self, run: Run, depth: int | None = None) -> Run:
        """The best `depth` (None: all) of a run that holds all ties; equal scores in order of chunk id."""
        if len(run) and (run.scores[1:] == run.scores[:-1]).any():
            ids = np.array([self.catalog.ids[position] for position in run.positions.tolist()])
            order = np.lexsort((ids, -run.scores))
            run = Run(run.positions[order], run.scores[order])
        return run if depth is None else run.first(depth)
