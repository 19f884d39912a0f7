"""The face of every engine: documents go in with their vectors, runs come out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.fusion import Run

DECIMALS = 6
"""What float32 sums agree on, whatever the order of summation. Exact engines round to it, so that ties are stable."""


class Engine(Protocol):
    """Ranks documents by their vectors. A document is a number, counted from 0 in the order of `add`; numbers stay.

    exact: whether a search answers what brute force over float32 vectors answers.
    """

    @property
    def exact(self) -> bool: ...

    def __len__(self) -> int:
        """Documents added so far."""
        ...

    def add(self, vectors: Vectors) -> None:
        """Documents len(self), len(self) + 1, ... get these vectors; the next search finds them."""
        ...

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        """The best `depth` of the allowed documents, and of an exact engine also all that tie with the last of them.

        query: float32 [query rows, dims]. allowed: bool [documents], None for all. What is not allowed is never in the
        run. Fewer come back only where fewer are allowed, or have rows at all. Best first, equal scores by the lower
        number.
        """
        ...
