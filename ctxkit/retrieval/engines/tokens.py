"""Nearest token vectors: what the multi-vector engine asks of a store of rows, be it faiss or a database."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np

from ctxkit.retrieval.engines import saved
from ctxkit.retrieval.engines.faiss_rows import FaissRows
from ctxkit.retrieval.engines.recipes import IvfOptions, Recipe, from_facts, to_facts


class TokenIndex(Protocol):
    """Token vectors, found by inner product. A row's number is its position in the order of `add`.

    A database that holds a number per row is one as it is: the number says whose token it is, with no table beside it.
    """

    def add(self, rows: np.ndarray) -> None:
        """The next rows. rows: float32 [rows, dims]."""
        ...

    def search(
        self, query: np.ndarray, depth: int, allowed_rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarities, float32, and row numbers, int64, of about the best rows of each query row.

        Both [query rows, depth], -1 as the number where nothing was found. What is not allowed is never among them.
        query: float32 [query rows, dims]. allowed_rows: bool [rows], None for all.
        """
        ...


class FaissTokens(FaissRows):
    """Token vectors in faiss: IVF with a code ("pq64x4fs" where nothing is said), a graph, or flat, by the recipe.

    With "pq64x4fs" 32 bytes per token and 8 for its number; beside that `TokenAnnEngine` keeps int8 rows. It needs dims
    that 64 divides; "sq8" takes any.
    """

    def __init__(self, recipe: Recipe | None = None, *, device: str | None = None, faiss: Any = None) -> None:
        super().__init__(recipe or IvfOptions(code="pq64x4fs", probes=16), device=device, faiss=faiss)

    def state(self) -> np.ndarray:
        """uint8 [bytes], which `restore` makes this index of: all that faiss holds."""
        facts, arrays = self.to_arrays()
        return saved.pack(type(self).__name__, facts | to_facts(self.recipe), arrays)

    @classmethod
    def restore(
        cls,
        state: np.ndarray | bytes,
        recipe: Recipe | None = None,
        *,
        device: str | None = None,
        faiss: Any = None,
    ) -> Self:
        """The index that `state` was asked of. recipe: of the same kind, in place of the one it had.

        Raises StoreError where the bytes are damaged, IndexMismatch where another engine or format wrote them.
        """
        facts, arrays = saved.unpack(state, cls.__name__)
        tokens = cls(recipe or from_facts(facts), device=device, faiss=faiss)
        tokens.load(facts, arrays)
        return tokens
