"""A collection's arrays on a device: moved there once. Imported only where torch is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.exact import ExactScan
from ctxkit_kernels import ByteRows, CodedTokens, DeviceRows, DeviceTokens

_ALIGNED_DIMS = 8  # 16 bytes of float16, what matrix products are read by


@dataclass(frozen=True)
class Coded:
    """Centroids, codes, and what both are in units of.

    centroids: [centroids, width], int8 values, which float16 holds exactly; one unit of them is worth `unit`.
    sizes: float32 [width], of a residual level in each dimension, the largest 1; one unit is worth `size_unit`.
    """

    centroids: Tensor
    unit: float
    sizes: Tensor
    size_unit: float
    tokens: DeviceTokens


@dataclass(frozen=True)
class Collection:
    """One collection on one device.

    dims: of a query; width: the same in whole blocks. dtype: of queries and of the products with centroids.
    filled: int32 [documents with tokens], their numbers: what a search without a filter looks at.
    coded: None where every search scans `rows`. Else `rows` are for refinement, and may be None.
    """

    dims: int
    width: int
    dtype: torch.dtype
    filled: Tensor
    coded: Coded | None
    rows: DeviceRows | None

    @property
    def device(self) -> torch.device:
        return self.filled.device

    @property
    def nbytes(self) -> int:
        """Bytes that the collection takes on the device."""
        held: list[object] = [self.filled]
        for part in (self.rows, self.coded, self.coded.tokens if self.coded else None):
            held.extend(vars(part).values() if part is not None else ())
        return sum(value.nbytes for value in held if isinstance(value, Tensor))


def moved(part: CodedIndex | ExactScan, device: torch.device, dtype: torch.dtype) -> Collection:
    """The collection on the device."""
    width = -(-part.dims // _ALIGNED_DIMS) * _ALIGNED_DIMS
    filled = _on(np.flatnonzero(part.counts > 0).astype(np.int32), device)
    if isinstance(part, ExactScan):
        return Collection(part.dims, width, dtype, filled, None, _rows([part.rows], device))
    rows = _rows([own.rows for own in part.parts if own.rows is not None], device) if part.refined else None
    return Collection(part.dims, width, dtype, filled, _coded(part, width, device, dtype), rows)


def _coded(index: CodedIndex, width: int, device: torch.device, dtype: torch.dtype) -> Coded:
    codebook, codec = index.codebook, index.codebook.codec
    centroids = np.zeros((len(codebook.centroids), width), np.float32)
    centroids[:, : index.dims] = codebook.centroids[:, : index.dims]
    size_unit = float(codec.sizes.max(initial=0.0)) or 1.0
    sizes = np.zeros(width, np.float32)
    sizes[: index.dims] = codec.sizes / size_unit
    tokens = _tokens([part.tokens for part in index.parts], device)
    return Coded(_on(centroids, device).to(dtype), codec.unit, _on(sizes, device), size_unit, tokens)


def _tokens(parts: Sequence[CodedTokens], device: torch.device) -> DeviceTokens:
    """The documents of all parts, in order, as one."""
    offsets = _joined_offsets([part.offsets for part in parts])
    return DeviceTokens(
        _on(offsets, device),
        torch.cat([_on(part.codes.astype(np.int32), device) for part in parts]),
        torch.cat([_on(part.residuals, device) for part in parts]),
        torch.cat([_on(part.norms, device) for part in parts]),
        _on(parts[0].levels, device).half(),
        int(np.diff(offsets).max(initial=0)),
    )


def _rows(parts: Sequence[ByteRows], device: torch.device) -> DeviceRows:
    offsets = _joined_offsets([part.offsets for part in parts])
    rows, scales = (torch.cat([_on(getattr(part, name), device) for part in parts]) for name in ("rows", "scales"))
    return DeviceRows(_on(offsets, device), rows, scales, int(np.diff(offsets).max(initial=0)))


def _joined_offsets(parts: Sequence[np.ndarray]) -> np.ndarray:
    """int64 [documents + 1]: the offsets of the parts' documents, laid one after the other."""
    counts = np.concatenate([np.diff(offsets) for offsets in parts])
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _on(array: np.ndarray, device: torch.device) -> Tensor:
    """A read-only array, as one that is mapped from a file, is copied first: torch would warn of it."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
