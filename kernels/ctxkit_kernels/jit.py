"""The kernels without a C++ compiler: loops by numba.

Products of int8 are summed in int32: LLVM makes multiply-and-add instructions of 16 bits of such a loop, which beat
numpy's float32 products by a third. The integers are those of the other paths, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
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
    stride_of,
)
from ctxkit_kernels.reference import ReferenceKernels

_BLOCK_TOKENS = 2048
_F = TypeVar("_F", bound=Callable[..., object])
_compiled = cast(Callable[[_F], _F], numba.njit(cache=True, nogil=True, boundscheck=False))


class NumbaKernels:
    """Every kernel by numba. The first call of each compiles it, some seconds, once per machine."""

    @property
    def name(self) -> str:
        return "numba"

    def score_rows(self, rows: Array, query: Array, shift: int) -> RowScores:
        lanes = len(query)
        values = np.zeros((len(rows), stride_of(lanes)), np.int16)
        products = np.empty((len(rows), lanes), np.int32)
        _products(rows, _padded(query, rows.shape[1]), products)
        _narrow(products, shift, values)
        peaks = np.empty((-(-len(rows) // BLOCK_ROWS), values.shape[1]), np.int16)
        _peaks(values, peaks)
        return RowScores(values, peaks, lanes)

    def select(self, scores: RowScores, sizes: Array, probes: int, bound: int, t_prime: int) -> Picks:
        ids = np.zeros((scores.lanes, probes), np.int32)
        floors = np.zeros(scores.lanes, np.int32)
        rows = len(scores.values)
        if rows:
            _select(scores.values, scores.peaks, np.asarray(sizes, np.int32), min(bound, rows), t_prime, ids, floors)
        return Picks(ids, np.full(scores.lanes, min(probes, rows), np.int32), floors)

    def accumulate(
        self, scores: RowScores, picks: Picks, postings: Postings, mask: Array | None, scratch: Scratch
    ) -> tuple[Array, Array]:
        base = np.uint32(scratch.stamp(scores.lanes))
        wanted = np.zeros(0, np.uint8) if mask is None else np.ascontiguousarray(mask).view(np.uint8)
        cells = scratch.cells
        chosen = (picks.ids, picks.counts, picks.floors, postings.offsets, postings.documents)
        to = (cells["sum"], cells["stamp"], base, scratch.touched)
        n = int(_accumulate(scores.values, *chosen, wanted, *to))
        touched = scratch.touched[:n]
        return touched, np.take(cells["sum"], touched, out=scratch.sums[:n])

    def shortlist(self, documents: Array, values: Array, keep: int) -> Array:
        keys = (values.astype(np.int64) << 32) - documents  # by value, and then the lower id first
        if keep < len(keys):
            kept = np.argpartition(keys, len(keys) - keep)[len(keys) - keep :]
            documents, keys = documents[kept], keys[kept]
        return documents[np.argsort(-keys, kind="stable")].astype(np.int32)

    def coarse(self, scores: RowScores, documents: Array, tokens: CodedTokens) -> Array:
        out = np.zeros(len(documents), np.int32)
        _coarse(scores.values, scores.lanes, np.asarray(documents, np.int64), tokens.offsets, tokens.codes, out)
        return out

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
        rows, ends = _rows_of(documents, tokens.offsets)
        lanes = _padded(query, tokens.residuals.shape[1] * 8 // tokens.bits)
        whole = np.empty((len(rows), len(query)), np.float32)
        norms = tokens.norms[rows].astype(np.float32)
        levels = np.empty((_BLOCK_TOKENS, lanes.shape[1]), np.int8)
        products = np.empty((_BLOCK_TOKENS, len(query)), np.int32)
        for at in range(0, len(rows), _BLOCK_TOKENS):
            some = rows[at : at + _BLOCK_TOKENS]
            _unpack(tokens.residuals, some, tokens.levels, tokens.bits, levels)
            here = slice(at, at + len(some))
            _products(levels[: len(some)], lanes, products)
            _combine(scores.values, tokens.codes, some, products, *units, norms[here], whole[here])
        return _maxima(whole, ends, evidence)

    def scan(
        self, rows: ByteRows, query: Array, unit: float, documents: Array | None = None, *, evidence: bool = False
    ) -> tuple[Array, Array | None]:
        wanted = np.arange(len(rows.offsets) - 1) if documents is None else documents
        own, ends = _rows_of(wanted, rows.offsets)
        lanes = _padded(query, rows.rows.shape[1])
        whole = np.empty((len(own), len(query)), np.float32)
        products = np.empty((_BLOCK_TOKENS, len(query)), np.int32)
        for at in range(0, len(own), _BLOCK_TOKENS):
            some = own[at : at + _BLOCK_TOKENS]
            scales = rows.scales[some, None] * np.float32(unit)
            _products(rows.rows[some], lanes, products)
            whole[at : at + len(some)] = products[: len(some)] * scales
        return _maxima(whole, ends, evidence)

    def encode(self, values: Array, codes: Array, centroids: Array, codec: Codec) -> tuple[Array, Array]:
        return ReferenceKernels().encode(values, codes, centroids, codec)


def _padded(query: Array, columns: int) -> Array:
    """int8 [lanes, columns]: the query with zeros behind it."""
    lanes = np.zeros((len(query), columns), np.int8)
    lanes[:, : query.shape[1]] = query
    return lanes


def _rows_of(documents: Array, offsets: Array) -> tuple[Array, Array]:
    """int64 rows of the documents, one after the other, and where each document ends among them."""
    starts = offsets[documents]
    counts = offsets[np.asarray(documents, np.int64) + 1] - starts
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(int(counts.sum())), ends


def _maxima(whole: Array, ends: Array, evidence: bool) -> tuple[Array, Array | None]:
    totals = np.zeros(len(ends), np.float32)
    if not evidence:
        _totals(whole, ends, totals)
        return totals, None
    winners = np.full((len(ends), whole.shape[1]), -1, np.int64)
    _reduce(whole, ends, totals, winners)
    return totals, winners


@_compiled
def _products(rows: Array, lanes: Array, out: Array) -> None:
    for row in range(rows.shape[0]):
        one = rows[row]
        for lane in range(lanes.shape[0]):
            two, total = lanes[lane], np.int32(0)
            for j in range(len(one)):  # a function of its own would not be vectorised
                total += np.int32(one[j]) * np.int32(two[j])
            out[row, lane] = total


@_compiled
def _narrow(products: Array, shift: int, out: Array) -> None:
    half, by = np.int32((1 << shift) >> 1), np.int32(shift)
    low, high = np.int32(-32768), np.int32(32767)
    for row in range(products.shape[0]):
        for lane in range(products.shape[1]):
            out[row, lane] = min(high, max(low, (products[row, lane] + half) >> by))


@_compiled
def _peaks(values: Array, out: Array) -> None:
    for block in range(out.shape[0]):
        first = block * 16
        out[block] = values[first]
        for row in range(first + 1, min(first + 16, values.shape[0])):
            for lane in range(values.shape[1]):
                out[block, lane] = max(out[block, lane], values[row, lane])


@_compiled
def _select(values: Array, peaks: Array, sizes: Array, count: int, t_prime: int, ids: Array, floors: Array) -> None:
    rows = values.shape[0]
    keys = np.empty(rows, np.int64)
    for lane in range(ids.shape[0]):
        column = np.ascontiguousarray(peaks[:, lane])
        least = np.int16(-32768)
        if count <= len(column):
            least = np.partition(column, len(column) - count)[len(column) - count]
        found = 0
        for block in range(peaks.shape[0]):
            if peaks[block, lane] < least:
                continue
            for row in range(block * 16, min(block * 16 + 16, rows)):
                if values[row, lane] >= least:
                    keys[found] = -(np.int64(values[row, lane]) << 32) + row  # ascending: best score, lowest row
                    found += 1
        order = np.sort(keys[:found])
        covered = 0
        for i in range(count):
            row = order[i] & 0xFFFFFFFF
            if i < ids.shape[1]:
                ids[lane, i] = row
            if covered < t_prime:
                floors[lane] = values[row, lane]
            covered += sizes[row]


@_compiled
def _accumulate(
    values: Array,
    ids: Array,
    counts: Array,
    floors: Array,
    offsets: Array,
    documents: Array,
    mask: Array,
    sums: Array,
    stamps: Array,
    base: np.uint32,
    touched: Array,
) -> int:
    n = 0
    for lane in range(ids.shape[0]):
        stamp = np.uint32(base + np.uint32(1 + lane))
        for probe in range(counts[lane]):
            row = ids[lane, probe]
            gain = np.int32(values[row, lane]) - floors[lane]
            if gain < 0:
                break
            for at in range(offsets[row], offsets[row + 1]):
                document = documents[at]
                if stamps[document] <= base:
                    touched[n] = document
                    n += 1 if len(mask) == 0 or mask[document] != 0 else 0
                    sums[document] = gain
                elif stamps[document] != stamp:
                    sums[document] += gain
                stamps[document] = stamp
    return n


@_compiled
def _coarse(values: Array, lanes: int, documents: Array, offsets: Array, codes: Array, out: Array) -> None:
    best = np.empty(values.shape[1], np.int16)
    for i in range(len(documents)):
        first, last = offsets[documents[i]], offsets[documents[i] + 1]
        if first < last:
            best[:] = values[codes[first]]
            for token in range(first + 1, last):
                row = values[codes[token]]
                for lane in range(len(best)):
                    best[lane] = max(best[lane], row[lane])
            for lane in range(lanes):
                out[i] += best[lane]


@_compiled
def _unpack(residuals: Array, rows: Array, levels: Array, bits: int, out: Array) -> None:
    width, last = residuals.shape[1], np.int32(len(levels) - 1)
    for i in range(len(rows)):
        packed = residuals[rows[i]]
        for part in range(8 // bits):
            by, to = np.int32(part * bits), out[i, part * width : (part + 1) * width]
            for j in range(width):
                to[j] = levels[(np.int32(packed[j]) >> by) & last]


@_compiled
def _combine(
    values: Array,
    codes: Array,
    rows: Array,
    products: Array,
    unit_score: float,
    unit_residual: float,
    norms: Array,
    out: Array,
) -> None:
    near, far = np.float32(unit_score), np.float32(unit_residual)
    for i in range(len(rows)):
        centroid = values[codes[rows[i]]]
        for lane in range(out.shape[1]):
            whole = np.float32(centroid[lane]) * near + np.float32(products[i, lane]) * far
            out[i, lane] = whole * norms[i]


@_compiled
def _reduce(whole: Array, ends: Array, totals: Array, winners: Array) -> None:
    first = 0
    best = np.empty(whole.shape[1], np.float32)
    for document in range(len(ends)):
        if first < ends[document]:
            best[:] = whole[first]
            winners[document] = 0
            for row in range(first + 1, ends[document]):
                for lane in range(len(best)):
                    if whole[row, lane] > best[lane]:
                        best[lane] = whole[row, lane]
                        winners[document, lane] = row - first
            totals[document] = best.astype(np.float64).sum()
        first = ends[document]


@_compiled
def _totals(whole: Array, ends: Array, totals: Array) -> None:
    """`_reduce` without the winners, which keep the loop from being vectorised."""
    first = 0
    best = np.empty(whole.shape[1], np.float32)
    for document in range(len(ends)):
        if first < ends[document]:
            best[:] = whole[first]
            for row in range(first + 1, ends[document]):
                for lane in range(len(best)):
                    best[lane] = max(best[lane], whole[row, lane])
            totals[document] = best.astype(np.float64).sum()
        first = ends[document]
