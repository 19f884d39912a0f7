"""Token vectors in few bytes: an int8 centroid, a residual of 2 or 4 bits per dimension, and a length.

v is decoded as (centroid + residual) * norm. The residual is taken from the centroid as int8 rounds it, so that the
rounding costs nothing; its levels are Lloyd and Max's for the residuals of the collection, per dimension as wide as the
residuals are there; the norm makes the decoded vector as long as v was. Recall of 4 bits, measured: see
benchmarks/multivector.py.
"""

from __future__ import annotations

import numpy as np

from ctxkit.retrieval.multivector.clustering import blocks
from ctxkit_kernels import Codec, Kernels, padded_dims
from ctxkit_kernels.reference import unpack

_SAMPLE_TOKENS = 1 << 15
_SAMPLE_VALUES = 1 << 18
_LLOYD_STEPS = 60
_BLOCK_TOKENS = 1 << 16


def to_int8(values: np.ndarray) -> tuple[np.ndarray, float]:
    """int8 values in [-127, 127] and the unit they are in: values ~ int8 * unit, off by half a unit at most."""
    top = float(np.abs(values).max(initial=0.0))
    unit = top / 127 if np.isfinite(top) and top > 0 else 1.0
    return np.rint(values / unit).astype(np.int8), unit


def padded(rows: np.ndarray) -> np.ndarray:
    """int8 rows with zeros up to a multiple of 4 columns, as the kernels read them."""
    wide = np.zeros((len(rows), padded_dims(rows.shape[1])), np.int8)
    wide[:, : rows.shape[1]] = rows
    return wide


def byte_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [tokens, padded dims] and float32 [tokens]: each row in a unit of its own."""
    rows = np.zeros((len(values), padded_dims(values.shape[1])), np.int8)
    scales = np.ones(len(values), np.float32)
    for part in blocks(len(values), _BLOCK_TOKENS):
        tops = np.abs(values[part]).max(axis=1, initial=0.0)
        scales[part] = np.where(tops > 0, tops / 127, 1.0)
        rows[part, : values.shape[1]] = np.rint(values[part] / scales[part, None])
    return rows, scales


def train(values: np.ndarray, codes: np.ndarray, centroids: np.ndarray, unit: float, bits: int, seed: int) -> Codec:
    """The codec for residuals of `values` [tokens, dims] from int8 centroids, from a sample of them."""
    rng = np.random.default_rng(seed)
    dims = values.shape[1]
    some = np.sort(rng.choice(len(values), min(len(values), _SAMPLE_TOKENS), replace=False))
    residuals = values[some] - centroids[codes[some], :dims] * np.float32(unit)
    deviations = np.sqrt((residuals.astype(np.float64) ** 2).mean(axis=0)) if len(some) else np.ones(dims)
    deviations = np.maximum(deviations, max(1e-6 * float(deviations.max(initial=0.0)), 1e-12))
    scaled = (residuals / deviations).ravel()
    levels = lloyd_max(rng.choice(scaled, min(len(scaled), _SAMPLE_VALUES), replace=False), 1 << bits)
    rounded, level_unit = to_int8(levels)
    cuts = (rounded[1:].astype(np.float64) + rounded[:-1]) / 2 * level_unit
    return Codec(
        unit,
        (1 / deviations).astype(np.float32),
        (deviations * level_unit).astype(np.float32),
        cuts.astype(np.float32),
        rounded,
    )


def lloyd_max(values: np.ndarray, count: int) -> np.ndarray:
    """float64 [count], ascending: the levels with the least squared error for `values` (Lloyd 1957, Max 1960)."""
    if not len(values):
        return np.linspace(-1, 1, count)
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    levels = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    for _ in range(_LLOYD_STEPS):
        edges = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        first, last = np.concatenate([[0], edges]), np.concatenate([edges, [len(ordered)]])
        filled = last > first
        levels[filled] = (sums[last] - sums[first])[filled] / (last - first)[filled]
    return np.sort(levels)


def encode(
    kernels: Kernels, values: np.ndarray, codes: np.ndarray, centroids: np.ndarray, codec: Codec
) -> tuple[np.ndarray, np.ndarray]:
    """Residual codes, uint8 [tokens, width], and norms, float16 [tokens]."""
    width = padded_dims(values.shape[1], codec.bits) * codec.bits // 8
    residuals = np.empty((len(values), width), np.uint8)
    norms = np.empty(len(values), np.float16)
    for part in blocks(len(values), _BLOCK_TOKENS):
        residuals[part], norms[part] = kernels.encode(values[part], codes[part], centroids, codec)
    return residuals, norms


def decode(
    codec: Codec, centroids: np.ndarray, codes: np.ndarray, residuals: np.ndarray, norms: np.ndarray
) -> np.ndarray:
    """float32 [tokens, dims]: what a search takes these tokens for, but for the rounding of the query."""
    dims = len(codec.sizes)
    near = centroids[codes, :dims].astype(np.float32) * np.float32(codec.unit)
    return (near + unpack(residuals, codec.levels)[:, :dims] * codec.sizes) * norms[:, None].astype(np.float32)
