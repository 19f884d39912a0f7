"""What the engines over faiss rows have in common: documents go in, bytes come out and go back in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines import checks, saved
from ctxkit.retrieval.engines.base import DECIMALS
from ctxkit.retrieval.engines.documents import Documents
from ctxkit.retrieval.engines.faiss_rows import FaissRows
from ctxkit.retrieval.engines.recipes import Recipe, from_facts, to_facts
from ctxkit.retrieval.fusion import Run

_SPARE_ROWS = 16  # fetched beyond the depth, so that most searches end after one round

MORE_TIMES = 4
"""So many times the rows are fetched in the next round."""


class RowsEngine:
    """Documents over faiss rows. An engine adds its recipe and its `search`."""

    recipe_type: ClassVar[Callable[..., Recipe]]

    def __init__(self, options: Recipe | None = None, *, device: str | None = None, faiss: Any = None) -> None:
        """options: None for the defaults. device: as `gpu.placed` takes it. faiss: the module, for tests."""
        self._rows = FaissRows(options or type(self).recipe_type(), device=device, faiss=faiss)
        self._documents = Documents()

    def __len__(self) -> int:
        return len(self._documents)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} documents, {len(self._rows)} rows, {self._rows.recipe!r})"

    @property
    def dims(self) -> int | None:
        """Of the rows, None before the first."""
        return self._documents.dims

    @property
    def trained_rows(self) -> int:
        """How many rows the faiss index was made from; 0 while all rows are compared."""
        return self._rows.trained_rows

    def add(self, vectors: Vectors) -> None:
        """As `Engine.add`. Raises ValueError, and adds nothing, where shapes do not fit or a value is not finite."""
        checked = checks.vectors_of(vectors, self.dims)
        self._rows.add(checked.values)  # first: should it fail, nothing has changed
        self._documents.add(checked)

    def state(self) -> np.ndarray:
        """uint8 [bytes], which `restore` makes this engine of: all that faiss holds, and 8 bytes per document."""
        facts, arrays = self._rows.to_arrays()
        arrays["offsets"] = self._documents.offsets
        return saved.pack(type(self).__name__, facts | to_facts(self._rows.recipe), arrays)

    @classmethod
    def restore(
        cls,
        state: np.ndarray | bytes,
        options: Recipe | None = None,
        *,
        device: str | None = None,
        faiss: Any = None,
    ) -> Self:
        """The engine that `state` was asked of. options: in place of those it had, for what is to come.

        Raises StoreError where the bytes are damaged, IndexMismatch where another engine or format wrote them.
        """
        facts, arrays = saved.unpack(state, cls.__name__)
        engine = cls(options or from_facts(facts), device=device, faiss=faiss)
        engine._rows.load(facts, arrays)
        if arrays["offsets"][-1] != len(engine._rows):
            raise StoreError(
                f"the saved index has {len(engine._rows)} rows, its documents have {arrays['offsets'][-1]}. "
                "Build the engine anew"
            )
        engine._documents = Documents(engine._rows.dims, arrays["offsets"])
        return engine

    def _asked(
        self, query: np.ndarray, depth: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None, int]:
        """The query, the rows allowed (None: all) and how many these are."""
        query = checks.query_of(query, self.dims, rows=1)
        checks.depth_of(depth)
        mask = self._documents.rows_allowed(checks.allowed_of(allowed, len(self)))
        return query, mask, len(self._rows) if mask is None else int(np.count_nonzero(mask))

    def _first_take(self, depth: int, candidates: int) -> int:
        """How many rows the first round fetches: the rows of one document lie close to each other."""
        per_document = -(-self._documents.rows // max(len(self), 1))
        return min(candidates, depth * per_document + _SPARE_ROWS)

    def _exactly(self, query: np.ndarray, mask: np.ndarray | None, candidates: int, depth: int) -> Run:
        """The best `depth` and all that tie with the last of them, by comparing every allowed row."""
        take = self._first_take(depth, candidates)
        while take:
            scores, rows = self._rows.look(query, take, None, mask)
            run = self._documents.run(scores[0], rows[0])
            last = np.round(np.float64(scores[0, -1]), DECIMALS)  # no further row scores more
            if take == candidates or (len(run) >= depth and last < run.scores[depth - 1]):
                return _with_ties(run, depth)
            take = min(candidates, MORE_TIMES * take)
        return Run.empty()


def _with_ties(run: Run, depth: int) -> Run:
    """The best `depth`, and all that score what the last of them scores."""
    if len(run) <= depth:
        return run
    kept = int(np.searchsorted(-run.scores, -run.scores[depth - 1], side="right"))
    return Run(run.positions[:kept], run.scores[:kept])
