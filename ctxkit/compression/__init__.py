"""The cheaper levels of a group: one way to make them in each file, and `standard()` for those that need no model."""

from __future__ import annotations

from ctxkit.compression.by_content import ContentCompressor
from ctxkit.compression.diff_history import DiffHistory, DiffHistoryCompressor
from ctxkit.compression.extractive import ExtractiveCompressor, extract
from ctxkit.compression.structural import StructuralCompressor
from ctxkit.compression.stub import StubCompressor
from ctxkit.compression.summary import SummaryCompressor, SummaryRejected
from ctxkit.context.level import Compressor


def standard() -> tuple[Compressor, ...]:
    """The compressors that work offline, in the order in which they are asked."""
    return (ContentCompressor(), StubCompressor())


__all__ = [
    "ContentCompressor",
    "DiffHistory",
    "DiffHistoryCompressor",
    "ExtractiveCompressor",
    "StructuralCompressor",
    "StubCompressor",
    "SummaryCompressor",
    "SummaryRejected",
    "extract",
    "standard",
]
