"""Rows in a faiss index: compared one by one while they are few, then by what a recipe makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ctxkit.errors import MissingExtra, StoreError
from ctxkit.retrieval.engines import checks
from ctxkit.retrieval.engines.gpu import GpuCopy, gpu_number, placed
from ctxkit.retrieval.engines.recipes import FlatOptions, Recipe

_RECOPIED_GROWTH = 1.1  # a GPU copy that takes no rows is made anew when there are so many times the rows


class FaissRows:
    """Rows 0, 1, ... of float32, found by inner product. Satisfies `TokenIndex`.

    Many threads may search at once; `add` must have the object for itself. While an index is made anew, it, its rows
    as float32 and the new one are in memory together.

    recipe: what kind of index, and from how many rows on. device: as `gpu.placed` takes it.
    faiss: the module, for tests; None imports it, and raises MissingExtra where it is not installed.
    """

    def __init__(self, recipe: Recipe, *, device: str | None = None, faiss: Any = None) -> None:
        self.recipe = recipe
        self._faiss = faiss or _imported()
        self._device = device
        gpu_number(device, self._faiss)  # says no now rather than at the first add
        self._index: Any = None
        self._trained_rows = 0
        self._copy: GpuCopy | None = None
        self._recopied_rows = 0

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def dims(self) -> int | None:
        """Of the rows, None before the first."""
        return None if self._index is None else int(self._index.d)

    @property
    def trained_rows(self) -> int:
        """How many rows the index was made from; 0 while all are compared."""
        return self._trained_rows

    def add(self, rows: np.ndarray) -> None:
        """Rows len(self), len(self) + 1, ... are these. rows: [rows, dims]. Raises ValueError where malformed."""
        rows = checks.rows_of(rows, self.dims, "rows")
        if not len(rows):
            return
        after = len(self) + len(rows)
        due = self.recipe.due_rows(self._trained_rows) if self._trained_rows else self.recipe.least_rows(rows.shape[1])
        if due is not None and after >= due:
            self._replace(self.recipe.build(self._faiss, self._with(rows)))
            self._trained_rows = after
        elif self._index is None:
            self._replace(FlatOptions().build(self._faiss, rows))
        else:
            self._append(rows)

    def search(
        self, query: np.ndarray, depth: int, allowed_rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `depth` rows of each query row, as wide as the recipe starts: some may be missing (-1)."""
        query = checks.query_of(query, self.dims)
        mask = checks.allowed_of(allowed_rows, len(self), "allowed_rows")
        if not len(self) or not len(query):
            return np.zeros((len(query), checks.depth_of(depth)), np.float32), np.full((len(query), depth), -1)
        return self.look(query, checks.depth_of(depth), next(self.widths(mask)), mask)

    def widths(self, mask: np.ndarray | None = None) -> Iterator[int | None]:
        """What `look` can be asked with, narrow first; None, the last, compares every allowed row."""
        share = 1.0 if mask is None else float(np.count_nonzero(mask)) / max(len(self), 1)
        return self._current.widths(self._index, share)

    def look(
        self, query: np.ndarray, take: int, width: int | None, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores, float32, and numbers, int64, of the best `take` rows of each query row, [query rows, take].

        Best first; -1 where fewer were found. mask: bool [rows].
        """
        if mask is None and self._copy is not None:
            found = self._copy.search(query, take, width)
            if found is not None:
                return found
        selector = None if mask is None else self._faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        return self._current.search(self._faiss, self._index, query, take, width, selector)

    def values(self) -> np.ndarray:
        """float32 [rows, dims], decoded where codes are kept."""
        if self._index is None:
            return np.zeros((0, 0), np.float32)
        return self._index.reconstruct_n(0, len(self))

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `load` takes."""
        index = np.zeros(0, np.uint8) if self._index is None else self._faiss.serialize_index(self._index)
        return {"trained_rows": self._trained_rows}, {"index": index}

    def load(self, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Becomes what `to_arrays` was asked of. Raises StoreError where faiss cannot read the index."""
        self._trained_rows = facts["trained_rows"]
        if not len(arrays["index"]):
            return
        try:
            index = self._faiss.deserialize_index(np.ascontiguousarray(arrays["index"]))
        except RuntimeError as error:
            raise StoreError(f"faiss cannot read the saved index: {error}. Build the engine anew") from error
        self._replace(index)

    @property
    def _current(self) -> Recipe:
        return self.recipe if self._trained_rows else FlatOptions()

    def _with(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self.values(), rows]) if len(self) else rows

    def _append(self, rows: np.ndarray) -> None:
        self._index.add(rows)
        if self._copy is not None and not self._copy.add(rows):
            self._copy = None
        if self._copy is None and self._recopied_rows and len(self) >= self._recopied_rows:
            self._place(self._index)

    def _replace(self, index: Any) -> None:
        self._place(index)
        self._index = index

    def _place(self, index: Any) -> None:
        self._copy = placed(index, self._device, self._faiss)
        self._recopied_rows = 0 if self._copy is None else int(index.ntotal * _RECOPIED_GROWTH) + 1


def _imported() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra("faiss-cpu", "retrieval") from error
    return faiss
