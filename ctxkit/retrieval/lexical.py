"""Lexical search: BM25 over the words of titles and texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxkit.errors import MissingExtra
from ctxkit.retrieval.fusion import Run, best
from ctxkit.retrieval.terms import terms

K1 = 1.2
B = 0.75


class LexicalIndex:
    """BM25 (bm25s, the Lucene variant) over n documents, each a list of terms."""

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        try:
            import bm25s
        except ModuleNotFoundError as error:
            raise MissingExtra("bm25s", "retrieval") from error
        self._documents = len(documents)
        self._bm25 = bm25s.BM25(method="lucene", k1=K1, b=B) if any(documents) else None
        if self._bm25 is not None:
            self._bm25.index([list(document) for document in documents], show_progress=False)

    def search(self, query: str, depth: int, allowed: np.ndarray | None = None) -> Run:
        """The `depth` best of the allowed documents (bool [n], None for all) that share a term with `query`."""
        scores = self.scores(query)
        found = scores > 0 if allowed is None else (scores > 0) & allowed
        positions = np.flatnonzero(found)
        return best(positions, scores[positions].astype(np.float64), depth)

    def scores(self, query: str) -> np.ndarray:
        """BM25 of every document, float32 [n]; 0 where no term is shared."""
        if self._bm25 is None:
            return np.zeros(self._documents, np.float32)
        known = self._bm25.get_tokens_ids(list(dict.fromkeys(terms(query))))
        if not known:
            return np.zeros(self._documents, np.float32)
        return self._bm25.get_scores_from_ids(known)
