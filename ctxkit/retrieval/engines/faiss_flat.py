"""Exact search: the inner product with every row."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ctxkit.retrieval.engines.recipes import FlatOptions
from ctxkit.retrieval.engines.rows_engine import RowsEngine
from ctxkit.retrieval.fusion import Run


class FlatEngine(RowsEngine):
    """Inner product with every row (faiss IndexFlatIP), exact; a document scores what its best row scores.

    Keeps the float32 rows, 4 * dims bytes each, and 8 bytes per document. A filter costs nothing: what is not allowed
    is not compared. A document without rows is never found. Many threads may search at once; `add` must have the
    engine for itself.
    """

    exact = True
    recipe_type: ClassVar[type[FlatOptions]] = FlatOptions

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        """As `Engine.search`. query: [1, dims]. Raises ValueError where an argument is malformed."""
        return self._exactly(*self._asked(query, depth, allowed), depth)
