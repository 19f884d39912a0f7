"""A batch's way over the device: from queries to one tensor of results, without a word from the host in between.

1. Centroid scores: one product of all centroids with all lanes of the batch.
2. Every allowed document by the centroids of its tokens (PLAID's approximation, arXiv 2205.09707). The CPU engine finds
   candidates by postings instead. How many those are is known only when they have been counted, so a GPU would have to
   wait for the host or pad to the worst case; a pass over all codes reads 4 bytes for each token, has sizes that are
   known beforehand, and misses nothing. Its time grows with the collection, whatever the query.
3. The best of these by their codes, decoded and scored in one kernel; where the collection keeps int8 rows, the best of
   those by their rows. 4. The k best, and which token of each answers each query token.

Ties are decided by the lower document number, as on the CPU. Imported only where torch is installed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctxkit.retrieval.multivector.gpu_arrays import Coded, Collection
from ctxkit.retrieval.multivector.options import GpuOptions
from ctxkit_kernels import DeviceKernels, QueryBatch

HEAD = 2
"""Columns of a result before its evidence: the document and its score."""


def rank(
    collection: Collection,
    kernels: DeviceKernels,
    lanes: Tensor,
    counts: Tensor,
    documents: Tensor,
    k: int,
    options: GpuOptions,
) -> Tensor:
    """int32 [queries, k, 2 + lanes]: documents best first, the bits of their float32 scores, and the tokens that won.

    lanes: float32 [queries, lanes, width], no lane longer than 1. counts: int32 [queries], lanes of each.
    documents: int32 [allowed], at least k of them, ascending.
    """
    queries = QueryBatch(lanes.to(collection.dtype), counts)
    every = documents.expand(len(lanes), -1)
    if collection.coded is None:
        return _scanned(collection, kernels, queries, every, k, evidence=True)
    return _CodedSearch(collection, collection.coded, kernels, queries, lanes).run(every, k, options)


def best(scores: Tensor, k: int) -> Tensor:
    """int64 [queries, k]: places of the k best of float32 [queries, documents], best first, of equal ones the first.

    Scores become the high half of integers that sort as they do, places the low half: no two are equal.
    """
    bits = (scores + 0.0).view(torch.int32)  # makes -0.0 to 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    places = torch.arange(scores.shape[1], device=scores.device)
    keys = (ordered.long() << 32) | (0xFFFFFFFF - places)
    return 0xFFFFFFFF - (keys.topk(k, dim=1).values & 0xFFFFFFFF)


class _CodedSearch:
    """One batch against a coded collection."""

    def __init__(
        self, collection: Collection, coded: Coded, kernels: DeviceKernels, queries: QueryBatch, lanes: Tensor
    ) -> None:
        self._collection, self._coded, self._kernels, self._queries = collection, coded, kernels, queries
        self._residual = QueryBatch((lanes * coded.sizes).to(collection.dtype), queries.counts)
        every = coded.centroids.expand(len(lanes), -1, -1)
        self._table = torch.bmm(every, queries.lanes.transpose(1, 2))  # [queries, centroids, lanes]

    def run(self, documents: Tensor, k: int, options: GpuOptions) -> Tensor:
        refine = options.refine_documents if self._collection.rows is not None else 0
        finalists = self._shortlist(documents, max(k, options.rerank_documents, refine))
        if refine:
            finalists = _taken(finalists, self._by_codes(finalists)[0], max(k, refine))
            found = _scanned(self._collection, self._kernels, self._queries, finalists.sort(dim=1).values, k)
            return torch.cat([found, self._evidence(found[..., 0])], dim=2)
        scores, _ = self._by_codes(finalists)
        places = best(scores, k)
        ranked = finalists.gather(1, places)
        return _packed(ranked, scores.gather(1, places), self._evidence(ranked))

    def _shortlist(self, documents: Tensor, keep: int) -> Tensor:
        """The `keep` best by centroids, ascending: of equal ones the lower comes first again, and reads are nearer."""
        if documents.shape[1] <= keep:
            return documents
        scores = self._kernels.coarse(self._table, self._queries.counts, documents, self._coded.tokens)
        return _taken(documents, scores, keep).sort(dim=1).values

    def _evidence(self, documents: Tensor) -> Tensor:
        winners = self._by_codes(documents, evidence=True)[1]
        assert winners is not None  # it was asked for
        return winners

    def _by_codes(self, documents: Tensor, *, evidence: bool = False) -> tuple[Tensor, Tensor | None]:
        units = self._coded.unit, self._coded.size_unit
        tokens = self._coded.tokens
        return self._kernels.rerank(self._table, self._residual, units, documents, tokens, evidence=evidence)


def _scanned(
    collection: Collection,
    kernels: DeviceKernels,
    queries: QueryBatch,
    documents: Tensor,
    k: int,
    *,
    evidence: bool = False,
) -> Tensor:
    """The k best by int8 rows, as `rank` gives them, or without evidence."""
    assert collection.rows is not None  # coded collections without rows do not come here
    scores, _ = kernels.scan(queries, documents, collection.rows)
    places = best(scores, k)
    ranked = documents.gather(1, places)
    winners = kernels.scan(queries, ranked, collection.rows, evidence=True)[1] if evidence else None
    return _packed(ranked, scores.gather(1, places), winners)


def _taken(documents: Tensor, scores: Tensor, keep: int) -> Tensor:
    return documents.gather(1, best(scores, keep)) if keep < documents.shape[1] else documents


def _packed(documents: Tensor, scores: Tensor, winners: Tensor | None) -> Tensor:
    """One tensor to copy: int32 [queries, documents, 2 + lanes]."""
    head = torch.stack([documents, scores.view(torch.int32)], dim=2)
    return head if winners is None else torch.cat([head, winners], dim=2)
