"""The stages of a search: what each leaves to the next.

Centroid scores, WARP_SELECT and accumulation with imputation (XTR arXiv 2304.01982, WARP arXiv 2501.17788),
centroid-only scores of what that leaves (PLAID arXiv 2205.09707), exact scores of the codes of what that leaves, and of
their int8 vectors where the index keeps them.
"""

from __future__ import annotations

import numpy as np

from ctxkit.retrieval.multivector import codec as coding
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.options import Mode, SearchOptions
from ctxkit.retrieval.multivector.part import CodedPart
from ctxkit.retrieval.multivector.ranked import Ranked, top
from ctxkit_kernels import Kernels, Picks, RowScores

_INT16_MOST = 32767
_DIRECT_SHARE = 0.01  # filters that leave less of the collection skip the first stages


def rank(
    index: CodedIndex,
    kernels: Kernels,
    query: np.ndarray,
    k: int,
    mode: Mode,
    mask: np.ndarray | None,
    options: SearchOptions,
    *,
    evidence: bool = True,
) -> Ranked:
    """The best k documents of those allowed; fewer only where fewer are allowed."""
    search = Search(index, kernels, query, options)
    found = search.run(k, mode, mask)
    return Ranked(found.documents, found.scores, search.evidence(found.documents) if evidence else None)


class Search:
    """One query against one index.

    query: float32 [query tokens, dims].
    """

    def __init__(self, index: CodedIndex, kernels: Kernels, query: np.ndarray, options: SearchOptions) -> None:
        self._index, self._kernels, self._options = index, kernels, options.grown(index.tokens)
        self._query = query
        codebook = index.codebook
        rounded, unit = coding.to_int8(query)
        longest = float(np.sqrt((rounded.astype(np.int32) ** 2).sum(axis=1).max(initial=0)))
        most = codebook.longest * longest  # no score is larger: Cauchy and Schwarz
        self._shift = max(0, int(np.ceil(np.log2(max(most, 1) / _INT16_MOST))))
        self._unit = unit * codebook.codec.unit * 2**self._shift  # of a row score
        self._scores: RowScores = kernels.score_rows(codebook.centroids, rounded, self._shift)
        self._residual_query, self._residual_unit = coding.to_int8(query * codebook.codec.sizes)

    def run(self, k: int, mode: Mode, mask: np.ndarray | None) -> Ranked:
        allowed = len(self._index) if mask is None else int(np.count_nonzero(mask))
        wanted = min(k, allowed)
        if mode == "xtr":
            return self._imputed(wanted, mask)
        if mask is not None and allowed <= max(self._finalists(k), _DIRECT_SHARE * len(self._index)):
            return self._reranked(np.flatnonzero(mask).astype(np.int32), k)
        documents, sums, _ = self._accumulated(wanted, mask)
        best = self._kernels.shortlist(documents, sums, max(self._finalists(k), self._options.coarse_documents))
        return self._reranked(self._coarse(best, self._finalists(k)), k)

    def evidence(self, documents: np.ndarray) -> np.ndarray:
        """int64 [documents, query tokens]: the token of each document that answers each query token, by the codes."""
        winners = self._by_codes(documents, evidence=True)[1]
        return np.empty((0, len(self._query)), np.int64) if winners is None else winners

    def _finalists(self, k: int) -> int:
        return max(k, self._options.rerank_documents, self._options.refine_documents)

    def _coarse(self, documents: np.ndarray, keep: int) -> np.ndarray:
        """The `keep` best documents by the centroids of all their tokens."""
        if len(documents) <= keep:
            return documents
        values, _ = self._index.over_parts(
            documents, lambda part, own: (self._kernels.coarse(self._scores, own, part.tokens), None)
        )
        return self._kernels.shortlist(documents, values, keep)

    def _imputed(self, wanted: int, mask: np.ndarray | None) -> Ranked:
        """XTR: what a query token did not find of a document scores the token's floor."""
        documents, sums, floor = self._accumulated(wanted, mask)
        best = self._kernels.shortlist(documents, sums, wanted)
        order = np.argsort(documents, kind="stable")
        values = sums[order[np.searchsorted(documents, best, sorter=order)]]
        return Ranked(best, ((values + floor) * self._unit).astype(np.float32))

    def _accumulated(self, wanted: int, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
        """Candidates, their sums over the floors, and the floors' sum. Probes more where that finds too few."""
        index, centroids = self._index, len(self._index.codebook.centroids)
        t_prime, probes = self._options.t_prime_tokens, self._options.probes
        reaches_t_prime = int(t_prime / max(1.0, index.tokens / centroids))
        while True:
            bound = min(centroids, max(probes, reaches_t_prime, 1))
            picks = self._kernels.select(self._scores, index.sizes, probes, bound, t_prime)
            documents, sums = self._candidates(picks, mask)
            if len(documents) >= wanted or probes >= centroids:
                return documents, sums, int(picks.floors.sum())
            probes, t_prime = min(centroids, probes * 4), t_prime * 4

    def _candidates(self, picks: Picks, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Documents of all parts that the picks name, and their sums."""
        found, starts = [], self._index.starts
        for number, part in enumerate(self._index.parts):
            own = None if mask is None else mask[starts[number] : starts[number + 1]]
            documents, sums = self._kernels.accumulate(self._scores, picks, part.postings, own, part.scratch())
            found.append((documents + np.int32(starts[number]) if number else documents, sums))
        if len(found) == 1:
            return found[0]
        return np.concatenate([documents for documents, _ in found]), np.concatenate([sums for _, sums in found])

    def _reranked(self, documents: np.ndarray, k: int) -> Ranked:
        """Exact scores of the codes; of the best of these, scores of the int8 vectors."""
        scores, _ = self._by_codes(documents, evidence=False)
        refined = self._options.refine_documents
        if not refined or not self._index.refined:
            return top(documents, scores, k)
        finalists = top(documents, scores, max(k, refined)).documents
        rounded, unit = coding.to_int8(self._query)

        def scanned(part: CodedPart, own: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            return self._kernels.scan(part.rows, rounded, unit, own) if part.rows else (np.empty(0), None)

        return top(finalists, self._index.over_parts(finalists, scanned)[0], k)

    def _by_codes(self, documents: np.ndarray, *, evidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        units = self._unit, self._residual_unit

        def reranked(part: CodedPart, own: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            kernel = self._kernels.rerank
            return kernel(self._scores, self._residual_query, units, own, part.tokens, evidence=evidence)

        return self._index.over_parts(documents, reranked)
