"""Fewer tokens, the facts intact: one method in each file, as levels for `fit` and as `compress` for texts.

`standard()` are those that `fit` can be given without a model. What methods are made of is in the folders.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.by_content import ContentCompressor
from ctxkit.compression.by_question.selector import SentenceSelector
from ctxkit.compression.diff_history import DiffHistory, DiffHistoryCompressor
from ctxkit.compression.extractive import ExtractiveCompressor, extract
from ctxkit.compression.prepared import Compressed, Compression, Prepared, compress, prepare
from ctxkit.compression.router import QuestionRouter
from ctxkit.compression.structural import StructuralCompressor
from ctxkit.compression.stub import StubCompressor
from ctxkit.compression.summaries.centroid import CentroidCompressor
from ctxkit.compression.summaries.summariser import SummaryCache
from ctxkit.compression.summaries.summary import SummaryCompressor, SummaryRejected
from ctxkit.compression.surprisal import Surprisal
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import TextCompressor, WordCompressor
from ctxkit.context.level import Compressor

if TYPE_CHECKING:
    from ctxkit.compression.deletion import SemanticDeletion
    from ctxkit.compression.draft_attention import DraftAttention
    from ctxkit.compression.facts import FactWords
    from ctxkit.compression.llmlingua2 import LLMLingua2

# These compute with numpy, which nothing else here loads before it is needed.
_ON_USE = {
    "DraftAttention": "draft_attention",
    "FactWords": "facts",
    "LLMLingua2": "llmlingua2",
    "SemanticDeletion": "deletion",
}


def standard() -> tuple[Compressor, ...]:
    """The compressors that work offline, in the order in which they are asked."""
    return (ContentCompressor(), StubCompressor())


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)


__all__ = [
    "CentroidCompressor",
    "Compressed",
    "Compression",
    "ContentCompressor",
    "DiffHistory",
    "DiffHistoryCompressor",
    "DraftAttention",
    "ExtractiveCompressor",
    "FactWords",
    "Head",
    "LLMLingua2",
    "NoStopWords",
    "Pins",
    "Prepared",
    "QuestionRouter",
    "RandomWords",
    "RareWords",
    "SemanticDeletion",
    "SentenceSelector",
    "StructuralCompressor",
    "StubCompressor",
    "SummaryCache",
    "SummaryCompressor",
    "SummaryRejected",
    "Surprisal",
    "TextCompressor",
    "WordCompressor",
    "Words",
    "compress",
    "extract",
    "prepare",
    "standard",
]
