"""Kernels: arrays in, arrays out; knows nothing about text."""

from __future__ import annotations

from ctxkit_kernels.choose import DevicePath, all_kernels, best_kernels, device_kernels
from ctxkit_kernels.device import DeviceKernels, DeviceRows, DeviceTokens, QueryBatch
from ctxkit_kernels.interface import (
    ByteRows,
    Codec,
    CodedTokens,
    Kernels,
    Picks,
    Postings,
    RowScores,
    Scratch,
    padded_dims,
)

__all__ = [
    "ByteRows",
    "Codec",
    "CodedTokens",
    "DeviceKernels",
    "DevicePath",
    "DeviceRows",
    "DeviceTokens",
    "Kernels",
    "Picks",
    "Postings",
    "QueryBatch",
    "RowScores",
    "Scratch",
    "all_kernels",
    "best_kernels",
    "device_kernels",
    "padded_dims",
]
