"""ContentCompressor: each text by what it is; prose by what matters for the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.extractive import extract
from ctxkit.compression.sources.cut import Source, first_of
from ctxkit.compression.text_compressor import TextCompressor, structure_reader
from ctxkit.context.level import LevelRequest


@dataclass(frozen=True)
class ContentCompressor(TextCompressor):
    """JSON, tables, code and logs as StructuralCompressor reduces them, all other text as ExtractiveCompressor does.

    One ladder for each group where asking both compressors would make two, so it takes half the time of both.
    """

    @property
    def name(self) -> str:
        return "content"

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        read = first_of((structure_reader(), extract))
        return [read(text, request) for text in texts]
