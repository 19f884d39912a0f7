"""The multi-vector engine of an index: documents in coded parts, and behind them those that came since."""

from __future__ import annotations

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines.base import DECIMALS
from ctxkit.retrieval.fusion import Run, best_and_ties
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.gpu import GpuEngine
from ctxkit.retrieval.multivector.options import GpuOptions, SearchOptions
from ctxkit.retrieval.multivector.stages import Search
from ctxkit.retrieval.multivector.tail import Tail
from ctxkit_kernels import Kernels, best_kernels


class LateInteractionEngine:
    """Late interaction (ColBERT, arXiv 2004.12832): every query row takes its best document row; these are summed.

    Documents of `coded` come first in number and are searched as `ctxkit.retrieval.multivector.stages` says; those
    added are all scored, by int8 rows.

    exact: score by float32 rows, as brute force does; slower by about the factor 5, and only without `coded`.
    device: None searches on this CPU; "cuda" searches what is coded on that GPU (`GpuEngine`, never measured there).
    """

    def __init__(
        self,
        dims: int,
        coded: CodedIndex | None = None,
        options: SearchOptions = SearchOptions(),  # noqa: B008 - frozen
        kernels: Kernels | None = None,
        *,
        exact: bool = False,
        device: str | None = None,
    ) -> None:
        self._coded = coded
        self._exact = exact and coded is None
        self._first = len(coded) if coded is not None else 0
        self._tail = Tail(dims)
        self._options = options
        self._kernels = kernels or best_kernels()
        on_gpu = GpuOptions(options.rerank_documents, options.refine_documents)
        self._gpu = GpuEngine(coded, device, options=on_gpu) if device is not None and coded is not None else None

    @property
    def exact(self) -> bool:
        return self._exact

    def __len__(self) -> int:
        return self._first + len(self._tail)

    def add(self, vectors: Vectors) -> None:
        """Documents len(self), len(self) + 1, ... get these rows; the next search finds them."""
        self._tail.add(vectors)

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        """As `Engine.search`. Documents without rows score 0."""
        documents, scores = self._tail_run(query, depth, allowed)
        if self._coded is not None:
            found, near = self._coded_run(self._coded, query, depth, allowed)
            documents, scores = np.concatenate([found, documents]), np.concatenate([near, scores])
        return best_and_ties(documents, np.round(scores, DECIMALS), depth)

    def vectors(self, documents: np.ndarray) -> Vectors:
        """The rows of documents: as they were given, or as the codes (or the int8 rows beside them) keep them."""
        rows = [self._document(document) for document in documents.tolist()]
        empty = np.zeros((0, self._tail.dims), np.float32)
        return Vectors(np.concatenate([empty, *rows]), np.cumsum([0, *map(len, rows)], dtype=np.int64))

    def _document(self, document: int) -> np.ndarray:
        if self._coded is None or document >= self._first:
            return self._tail.vectors(np.array([document - self._first])).values
        return self._coded.values(document)

    def _tail_run(self, query: np.ndarray, depth: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if allowed is None:
            documents = np.arange(len(self._tail), dtype=np.int32)
        else:
            documents = np.flatnonzero(allowed[self._first :]).astype(np.int32)
        if self._exact:
            documents, scores = self._tail.best(self._kernels, query, depth, documents)
        else:
            scores = self._tail.near(self._kernels, query, documents).astype(np.float64)
        return documents.astype(np.int64) + self._first, scores

    def _coded_run(
        self, coded: CodedIndex, query: np.ndarray, depth: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        mask, filled = None if allowed is None else allowed[: self._first], coded.with_tokens
        if filled is not None:
            mask = filled if mask is None else mask & filled
        if self._gpu is not None:
            found = self._gpu.search(query, depth, mask)
            return found.ids, found.scores.astype(np.float64)
        ranked = Search(coded, self._kernels, query, self._options).run(depth, "maxsim", mask)
        documents, scores = ranked.documents.astype(np.int64), ranked.scores.astype(np.float64)
        return documents, scores
