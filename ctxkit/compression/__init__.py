"""The cheaper levels of a group: one way to make them in each file, and `standard()` for those that need no model."""

from __future__ import annotations

from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.by_content import ContentCompressor
from ctxkit.compression.diff_history import DiffHistory, DiffHistoryCompressor
from ctxkit.compression.extractive import ExtractiveCompressor, extract
from ctxkit.compression.methods import compressor_named, method_names
from ctxkit.compression.prepared import Compressed, Compression, Prepared, compress, prepare
from ctxkit.compression.structural import StructuralCompressor
from ctxkit.compression.stub import StubCompressor
from ctxkit.compression.summaries.centroid import CentroidCompressor
from ctxkit.compression.summaries.summariser import SummaryCache
from ctxkit.compression.summaries.summary import SummaryCompressor, SummaryRejected
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import TextCompressor, WordCompressor
from ctxkit.context.level import Compressor


def standard() -> tuple[Compressor, ...]:
    """The compressors that work offline, in the order in which they are asked."""
    return (ContentCompressor(), StubCompressor())


__all__ = [
    "Compressed",
    "Compression",
    "CentroidCompressor",
    "ContentCompressor",
    "DiffHistory",
    "DiffHistoryCompressor",
    "ExtractiveCompressor",
    "Head",
    "NoStopWords",
    "Pins",
    "Prepared",
    "RandomWords",
    "RareWords",
    "StructuralCompressor",
    "StubCompressor",
    "SummaryCache",
    "SummaryCompressor",
    "SummaryRejected",
    "TextCompressor",
    "WordCompressor",
    "Words",
    "compress",
    "compressor_named",
    "extract",
    "method_names",
    "prepare",
    "standard",
]
