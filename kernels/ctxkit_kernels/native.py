"""The C++ kernels through ctypes. One object per instruction set; arrays go by address and are never copied."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_float, c_int, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

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
    addresses,
    padded_dims,
    stride_of,
)

PATHS = {"scalar": 0, "avx2": 1, "avx512": 2, "neon": 3}
_SIGNATURES: dict[str, list[Any]] = {
    "path_available": [c_int],
    "score_rows": [c_int, c_void_p, c_int64, c_int, c_int, c_void_p, c_int, c_int, c_void_p, c_void_p],
    "select": [c_int, c_void_p, c_void_p, c_int64, c_int, c_int, c_void_p, *[c_int64] * 3, *[c_void_p] * 3],
    "accumulate": [
        *(c_void_p, c_int, c_int, c_void_p, c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_void_p),
        *(c_void_p, c_uint32, c_void_p, c_void_p),
    ],
    "shortlist": [c_void_p, c_void_p, c_int64, c_int64, c_void_p],
    "coarse": [c_int, c_void_p, c_int, c_int, c_void_p, c_int64, c_void_p, c_void_p, c_int, c_void_p],
    "rerank": [
        *(c_int, c_void_p, c_void_p, c_int, c_int, c_int, c_float, c_float, c_void_p, c_int64, c_void_p, c_void_p),
        *(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p),
    ],
    "scan": [
        *(c_int, c_void_p, c_void_p, c_int, c_int, c_void_p, c_int, c_float, c_void_p, c_int64, c_void_p),
        *(c_void_p, c_void_p),
    ],
    "encode": [
        *(c_int, c_void_p, c_int64, c_int, c_void_p, c_int, c_void_p, c_int, c_float, c_void_p, c_void_p, c_void_p),
        *(c_void_p, c_int, c_int, c_void_p, c_void_p),
    ],
}


def bind(library: Path, signatures: Mapping[str, Sequence[Any]]) -> ctypes.CDLL:
    """The library, with the arguments of these functions. Raises OSError where the system cannot load it."""
    loaded = ctypes.CDLL(str(library))
    for name, arguments in signatures.items():
        getattr(loaded, f"ctxkit_{name}").argtypes = arguments
    return loaded


@cache
def load(library: Path) -> ctypes.CDLL:
    """The library with the signatures of the search kernels. Raises as `bind`."""
    loaded = bind(library, _SIGNATURES)
    loaded.ctxkit_accumulate.restype = c_int64
    return loaded


def available(library: Path) -> tuple[str, ...]:
    """Paths that this processor can run, best first."""
    loaded = load(library)
    return tuple(name for name, number in reversed(PATHS.items()) if loaded.ctxkit_path_available(number))


class NativePath:
    """The library on one instruction set, "avx512", "avx2", "neon" or "scalar". Raises RuntimeError without it."""

    def __init__(self, library: Path, path: str) -> None:
        self._library = self._load(library)
        self._path = PATHS[path]
        self._name = path
        if not self._library.ctxkit_path_available(self._path):
            raise RuntimeError(f"this processor cannot run the path {path!r}; it can run {available(library)}")

    @property
    def name(self) -> str:
        return f"c++ {self._name}"

    def _load(self, library: Path) -> ctypes.CDLL:
        return load(library)


class NativeKernels(NativePath):
    """The kernels of search."""

    def score_rows(self, rows: Array, query: Array, shift: int) -> RowScores:
        rows, query = _like(rows, np.int8), _like(query, np.int8)
        lanes, dims = query.shape
        values = np.empty((len(rows), stride_of(lanes)), np.int16)
        peaks = np.empty((-(-len(rows) // BLOCK_ROWS), values.shape[1]), np.int16)
        scores = RowScores(values, peaks, lanes)
        at_rows, at_query = addresses(rows, query)
        of = (at_rows, len(rows), dims, rows.shape[1], at_query, lanes, shift)
        _check(self._library.ctxkit_score_rows(self._path, *of, *scores.addresses))
        return scores

    def select(self, scores: RowScores, sizes: Array, probes: int, bound: int, t_prime: int) -> Picks:
        count, stride = scores.values.shape
        counts, floors = np.zeros((2, scores.lanes), np.int32)
        picks = Picks(np.zeros((scores.lanes, probes), np.int32), counts, floors)
        sizes = _like(sizes, np.int32)
        of = (*scores.addresses, count, scores.lanes, stride, sizes.ctypes.data, probes, bound, t_prime)
        _check(self._library.ctxkit_select(self._path, *of, *picks.addresses))
        return picks

    def accumulate(
        self, scores: RowScores, picks: Picks, postings: Postings, mask: Array | None, scratch: Scratch
    ) -> tuple[Array, Array]:
        wanted = None if mask is None else _like(mask.view(np.uint8) if mask.dtype == bool else mask, np.uint8)
        cells, touched, sums = scratch.addresses
        n = self._library.ctxkit_accumulate(
            *(scores.addresses[0], scores.lanes, scores.values.shape[1], *picks.addresses, picks.ids.shape[1]),
            *(*postings.addresses, None if wanted is None else wanted.ctypes.data),
            *(cells, scratch.stamp(scores.lanes), touched, sums),
        )
        return scratch.touched[:n], scratch.sums[:n]

    def shortlist(self, documents: Array, values: Array, keep: int) -> Array:
        documents, values = _like(documents, np.int32), _like(values, np.int32)
        out = np.empty(min(keep, len(documents)), np.int32)
        at_documents, at_values, at_out = addresses(documents, values, out)
        _check(self._library.ctxkit_shortlist(at_documents, at_values, len(documents), len(out), at_out))
        return out

    def coarse(self, scores: RowScores, documents: Array, tokens: CodedTokens) -> Array:
        documents = _like(documents, np.int32)
        out = np.empty(len(documents), np.int32)
        at_documents, at_out = addresses(documents, out)
        offsets, codes = tokens.addresses[:2]
        of = (scores.addresses[0], scores.lanes, scores.values.shape[1], at_documents, len(documents))
        wide = tokens.codes.dtype == np.uint32
        _check(self._library.ctxkit_coarse(self._path, *of, offsets, codes, wide, at_out))
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
        documents, query = _like(documents, np.int32), _like(query, np.int8)
        at_documents, at_query = addresses(documents, query)
        totals, winners, out = _results(len(documents), len(query), evidence)
        padded = tokens.residuals.shape[1] * 8 // tokens.bits
        offsets, codes, residuals, norms, levels = tokens.addresses
        of = (scores.addresses[0], at_query, len(query), query.shape[1], padded, *units)
        where = (at_documents, len(documents), offsets, codes, tokens.codes.dtype == np.uint32)
        _check(self._library.ctxkit_rerank(self._path, *of, *where, residuals, norms, levels, tokens.bits, *out))
        return totals, winners

    def scan(
        self, rows: ByteRows, query: Array, unit: float, documents: Array | None = None, *, evidence: bool = False
    ) -> tuple[Array, Array | None]:
        query = _like(query, np.int8)
        wanted = None if documents is None else _like(documents, np.int32)
        count = len(rows.offsets) - 1 if wanted is None else len(wanted)
        totals, winners, out = _results(count, len(query), evidence)
        offsets, values, scales = rows.addresses
        of = (values, scales, query.shape[1], rows.rows.shape[1], query.ctypes.data, len(query), unit)
        where = (None if wanted is None else wanted.ctypes.data, count, offsets)
        _check(self._library.ctxkit_scan(self._path, *of, *where, *out))
        return totals, winners

    def encode(self, values: Array, codes: Array, centroids: Array, codec: Codec) -> tuple[Array, Array]:
        values, bits = _like(values, np.float32), codec.bits
        count, dims = values.shape
        padded = padded_dims(dims, bits)
        residuals, norms = np.empty((count, padded * bits // 8), np.uint8), np.empty(count, np.float32)
        at_values, at_codes, at_centroids = addresses(values, codes, centroids)
        of = (at_values, count, dims, at_codes, codes.dtype == np.uint32, at_centroids, centroids.shape[1])
        by = (codec.unit, *addresses(codec.steepness, codec.sizes, codec.cuts, codec.levels), bits)
        _check(self._library.ctxkit_encode(self._path, *of, *by, padded, *addresses(residuals, norms)))
        return residuals, norms


def _results(documents: int, lanes: int, evidence: bool) -> tuple[Array, Array | None, tuple[int, int | None]]:
    """Totals and winners, and where they lie."""
    totals = np.empty(documents, np.float32)
    winners = np.empty((documents, lanes), np.int64) if evidence else None
    return totals, winners, (totals.ctypes.data, None if winners is None else winners.ctypes.data)


def _like(array: Array, dtype: type) -> Array:
    """`array` as C sees it; copied only where it is not so already."""
    return np.ascontiguousarray(array, dtype)


def _check(status: int) -> None:
    if status:
        raise MemoryError("a kernel ran out of memory")
