"""What an engine is given, checked once: shapes, kinds and finite numbers. Each raises ValueError."""

from __future__ import annotations

import numpy as np

from ctxkit.protocols import Vectors


def vectors_of(vectors: Vectors, dims: int | None) -> Vectors:
    """The same as contiguous float32 and int64. dims: what earlier rows had, None before the first."""
    values = np.ascontiguousarray(vectors.values, np.float32)
    offsets = np.ascontiguousarray(vectors.offsets, np.int64)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise ValueError("`vectors.offsets` must rise from 0 to the number of rows")
    if len(values):
        rows_of(values, dims, "vectors.values")
    return Vectors(values, offsets)


def rows_of(rows: np.ndarray, dims: int | None, name: str) -> np.ndarray:
    """`rows` as float32 [rows, dims]."""
    rows = np.ascontiguousarray(rows, np.float32)
    if rows.ndim != 2 or not rows.shape[1] or dims not in (None, rows.shape[1]):
        wanted = "at least 1" if dims is None else dims
        raise ValueError(f"`{name}` must be [rows, dims] with dims {wanted}, got shape {rows.shape!r}")
    if not np.isfinite(rows).all():
        raise ValueError(f"`{name}` holds NaN or infinity")
    return rows


def query_of(query: np.ndarray, dims: int | None, *, rows: int | None = None) -> np.ndarray:
    """`query` as float32 [rows, dims]. rows: how many it must have, None for any number."""
    query = rows_of(query, dims, "query")
    if rows not in (None, len(query)):
        raise ValueError(f"`query` must have {rows} row, got {len(query)}; late interaction is TokenAnnEngine's")
    return query


def depth_of(depth: int) -> int:
    if depth < 1:
        raise ValueError(f"`depth` must be at least 1, got {depth!r}")
    return depth


def allowed_of(allowed: np.ndarray | None, count: int, name: str = "allowed") -> np.ndarray | None:
    """`allowed`, which is bool [count] or None."""
    if allowed is None:
        return None
    allowed = np.ascontiguousarray(allowed)
    if allowed.dtype != bool or allowed.shape != (count,):
        raise ValueError(f"`{name}` must be bool [{count}], got {allowed.dtype} {allowed.shape!r}")
    return allowed
