"""What the kernels compute, in numpy: the path that is always there, and what the others are tested against.

Integers go through float64, where all of them are exact; floats are float64 to the end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctxkit_kernels.interface import (
    BLOCK_ROWS,
    Array,
    ByteRows,
    Codec,
    CodedTokens,
    Picks,
    Postings,
    RowScores,
    Scratch,
    padded_dims,
    stride_of,
)


class ReferenceKernels:
    """Every kernel in a few lines of numpy."""

    @property
    def name(self) -> str:
        return "numpy"

    def score_rows(self, rows: Array, query: Array, shift: int) -> RowScores:
        lanes = len(query)
        products = multiply(rows, query)  # [rows, lanes]
        rounded = (products + ((1 << shift) >> 1)) >> shift
        values = np.zeros((len(rows), stride_of(lanes)), np.int16)
        values[:, :lanes] = np.clip(rounded, -32768, 32767)
        starts = np.arange(0, len(rows), BLOCK_ROWS)
        peaks = np.maximum.reduceat(values, starts) if len(rows) else values
        return RowScores(values, peaks, lanes)

    def select(self, scores: RowScores, sizes: Array, probes: int, bound: int, t_prime: int) -> Picks:
        count = min(probes, len(scores.values))
        ids = np.zeros((scores.lanes, probes), np.int32)
        floors = np.zeros(scores.lanes, np.int32)
        for lane in range(scores.lanes):
            column = scores.values[:, lane]
            order = np.argsort(-column.astype(np.int32), kind="stable")[:bound]
            before = np.cumsum(sizes[order]) - sizes[order]  # tokens of the better rows
            ids[lane, :count] = order[:count]
            if (needed := np.flatnonzero(before < t_prime)).size:
                floors[lane] = column[order[needed[-1]]]
        return Picks(ids, np.full(scores.lanes, count, np.int32), floors)

    def accumulate(
        self, scores: RowScores, picks: Picks, postings: Postings, mask: Array | None, scratch: Scratch
    ) -> tuple[Array, Array]:
        sums = np.zeros(scratch.documents, np.int32)
        touched = np.zeros(scratch.documents, bool)
        for lane in range(scores.lanes):
            seen = np.zeros(scratch.documents, bool)
            for row in picks.ids[lane, : picks.counts[lane]]:
                gain = int(scores.values[row, lane]) - int(picks.floors[lane])
                if gain < 0:
                    break
                here = postings.documents[postings.offsets[row] : postings.offsets[row + 1]]
                fresh = here[~seen[here]]
                sums[fresh] += gain
                seen[fresh] = True
            touched |= seen
        found = np.flatnonzero(touched if mask is None else touched & (mask != 0)).astype(np.int32)
        return found, sums[found]

    def shortlist(self, documents: Array, values: Array, keep: int) -> Array:
        return documents[np.lexsort((documents, -values.astype(np.int64)))[:keep]].astype(np.int32)

    def coarse(self, scores: RowScores, documents: Array, tokens: CodedTokens) -> Array:
        found = np.zeros(len(documents), np.int32)
        for i, document in enumerate(documents):
            own = tokens.codes[tokens.offsets[document] : tokens.offsets[document + 1]]
            if len(own):
                found[i] = scores.values[own, : scores.lanes].max(axis=0).sum(dtype=np.int32)
        return found

    def rerank(
        self,
        scores: RowScores,
        query: Array,
        units: tuple[float, float],
        documents: Array,
        tokens: CodedTokens,
        *,
        evidence: bool = False,
    ) -> tuple[Array, Array | None]:
        def similar(first: int, last: int) -> Array:
            levels = unpack(tokens.residuals[first:last], tokens.levels)
            centroid = scores.values[tokens.codes[first:last], : scores.lanes].astype(np.float64)
            whole = centroid * units[0] + multiply(levels, query) * units[1]
            return whole * tokens.norms[first:last, None].astype(np.float64)  # [tokens, lanes]

        return maxsim(similar, documents, tokens.offsets, len(query), evidence)

    def scan(
        self, rows: ByteRows, query: Array, unit: float, documents: Array | None = None, *, evidence: bool = False
    ) -> tuple[Array, Array | None]:
        def similar(first: int, last: int) -> Array:
            return multiply(rows.rows[first:last], query) * (rows.scales[first:last, None].astype(np.float64) * unit)

        wanted = np.arange(len(rows.offsets) - 1) if documents is None else documents
        return maxsim(similar, wanted, rows.offsets, len(query), evidence)

    def encode(self, values: Array, codes: Array, centroids: Array, codec: Codec) -> tuple[Array, Array]:
        count, dims = values.shape
        near = centroids[codes, :dims].astype(np.float32) * np.float32(codec.unit)
        chosen = np.zeros((count, padded_dims(dims, codec.bits)), np.uint8)
        chosen[:, :dims] = np.searchsorted(codec.cuts, (values - near) * codec.steepness)
        rebuilt = near + codec.levels[chosen[:, :dims]].astype(np.float32) * codec.sizes
        before, after = ((rows.astype(np.float64) ** 2).sum(axis=1) for rows in (values, rebuilt))
        norms = np.sqrt(np.divide(before, after, out=np.zeros(count), where=after > 0)).astype(np.float32)
        return pack(chosen, codec.bits), norms


def multiply(rows: Array, query: Array) -> Array:
    """int64 [rows, lanes]: exact products of int8 rows, which may be padded, with int8 lanes."""
    dims = query.shape[1]
    return (rows[:, :dims].astype(np.float64) @ query.astype(np.float64).T).astype(np.int64)


def unpack(residuals: Array, levels: Array) -> Array:
    """int8 [tokens, padded dims]: what residual codes stand for."""
    bits = len(levels).bit_length() - 1
    parts = [residuals >> (part * bits) & (len(levels) - 1) for part in range(8 // bits)]
    return levels[np.concatenate(parts, axis=1)]


def pack(chosen: Array, bits: int) -> Array:
    """uint8 [tokens, width]: the inverse of `unpack`, from codes."""
    parts = np.split(chosen, 8 // bits, axis=1)
    return np.bitwise_or.reduce([part << (i * bits) for i, part in enumerate(parts)])


def maxsim(
    similar: Callable[[int, int], Array], documents: Array, offsets: Array, lanes: int, evidence: bool
) -> tuple[Array, Array | None]:
    """Sums over lanes of the best token's similarity. similar: (first, last) token -> float64 [tokens, lanes]."""
    totals = np.zeros(len(documents), np.float32)
    winners = np.full((len(documents), lanes), -1, np.int64)
    for i, document in enumerate(documents):
        first, last = int(offsets[document]), int(offsets[document + 1])
        if first < last:
            table = similar(first, last)
            totals[i] = table.max(axis=0).sum()
            winners[i] = table.argmax(axis=0)
    return totals, winners if evidence else None
