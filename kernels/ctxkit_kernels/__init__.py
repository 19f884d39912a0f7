"""Kernels: arrays in, arrays out; knows nothing about text."""

from __future__ import annotations

from ctxkit_kernels.choose import all_kernels, best_kernels
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
    "Kernels",
    "Picks",
    "Postings",
    "RowScores",
    "Scratch",
    "all_kernels",
    "best_kernels",
    "padded_dims",
]
