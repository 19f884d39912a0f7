"""Catalog: the chunks of an index in memory, numbered as they came, kept up with its writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from ctxkit.retrieval.growing import Growing
from ctxkit.retrieval.storage.tables import CHUNKS, DELETED, Value, rows


class Catalog:
    """Position 0 to n - 1 are chunks in the order in which they were written; a chunk that is gone keeps its place.

    ids, sources: by position.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.sources: list[str] = []
        self._slots = Growing(np.int64)  # rising
        self._documents = Growing(np.int64)  # document numbers
        self._live = Growing(bool)
        self._gone = 0

    def __len__(self) -> int:
        """Positions, those of chunks that are gone included."""
        return len(self.ids)

    @property
    def live_chunks(self) -> int:
        return len(self) - self._gone

    @property
    def live(self) -> np.ndarray:
        """bool [len(self)], which chunks are there."""
        return self._live.values

    @property
    def slots(self) -> np.ndarray:
        """int64 [len(self)], the number of each in the database."""
        return self._slots.values

    @property
    def documents(self) -> np.ndarray:
        """int64 [len(self)], the number of the document that holds the vectors of each."""
        return self._documents.values

    def add(self, chunk_rows: Iterable[Sequence[object]]) -> list[list[str]]:
        """Appends whole rows of the table; returns their terms."""
        taken = list(chunk_rows)
        self.ids += [str(row[2]) for row in taken]
        self.sources += [str(row[3]) for row in taken]
        self._slots.extend(np.array([row[0] for row in taken], np.int64))
        self._documents.extend(np.array([row[-1] for row in taken], np.int64))
        self._live.extend(np.ones(len(taken), bool))
        return [str(row[-2]).split(" ") if row[-2] else [] for row in taken]

    def remove(self, slots: Sequence[int]) -> np.ndarray:
        """Marks chunks as gone; returns their positions. Slots that are not known are no error."""
        found = np.flatnonzero(np.isin(self.slots, np.array(slots, np.int64)) & self.live)
        self.live[found] = False
        self._gone += len(found)
        return found

    def of_sources(self, globs: Sequence[str], first: int = 0) -> np.ndarray:
        """bool, of each position from `first` on whether its source fits one of the patterns."""
        names = self.sources[first:]
        fitting = {name for name in set(names) if any(fnmatchcase(name, glob) for glob in globs)}
        return np.fromiter((name in fitting for name in names), bool, len(names))


def changed_since(connection: sqlite3.Connection, generation: int) -> tuple[list[tuple[Value, ...]], list[int]]:
    """Chunks written after `generation` and still there, oldest first, and the slots of those deleted since."""
    # Sorted here: asked for an order, sqlite would walk all slots instead of the few rows that the index on it names.
    new = sorted(rows(connection, CHUNKS, "WHERE generation > ?", (generation,)), key=_slot)
    if not generation:  # whoever knows nothing has nothing to forget
        return new, []
    deleted = rows(connection, DELETED, "WHERE generation > ?", (generation,))
    return new, [slot for slot, _ in deleted]  # type: ignore[misc]


def _slot(row: tuple[Value, ...]) -> int:
    return int(row[0] or 0)
