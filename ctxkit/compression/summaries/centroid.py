"""CentroidCompressor: the sentences nearest to what a text is about, none that repeats another. Needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.extractive import by_sentence
from ctxkit.compression.sources.cut import Reader, Source, first_of
from ctxkit.compression.structure.json_level import either_json_reader, json_reader
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Encoder

NAME = "extractive summary, no model"
_FIDELITY = 0.7  # of all sentences: less than where they were chosen for the question


@dataclass(frozen=True)
class CentroidCompressor(TextCompressor):
    """An extractive summary: what `SummaryCompressor` does, for where there is no model, or it failed.

    Sentences are ranked by their cosine with the centroid of all (Radev et al., "Centroid-based summarization of
    multiple documents", 2004) and by their place, short ones less, one after the other by maximal marginal relevance:
    each is also unlike those before it (Carbonell and Goldstein, SIGIR 1998). The question plays no part in it, so a
    text has one summary for all questions; `ExtractiveCompressor` goes by the question. There is one ranking, smaller
    levels are prefixes of it; the output is slices of the source in order, gaps marked by "[...]". JSON is sampled, and
    stays JSON.

    encoder: makes the vectors of sentences, several of one sentence being averaged; None: term frequencies, weighted by
        how few sentences have the term.
    balance: lambda in [0, 1], how much being central counts against being new; 1.0 lets sentences repeat each other.
    """

    encoder: Encoder | None = None
    balance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.balance <= 1:
            raise ValueError(f"`balance` must be in [0, 1], got {self.balance!r}")

    @property
    def name(self) -> str:
        return NAME

    @property
    def arguments(self) -> Reader:
        return json_reader(lean=0.8, fidelity=_FIDELITY, keep_fields=True)

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        read = first_of((either_json_reader(lean=0.8, fidelity=_FIDELITY), self.read))
        return [read(text, request) for text in texts]

    def read(self, text: str, request: LevelRequest) -> Source | None:
        """A text as ranked sentences; None for the empty one."""
        return by_sentence(text, request.counter, self._scores, fidelity=_FIDELITY)

    def _scores(self, sentences: Sequence[str]) -> list[float]:
        from ctxkit.compression.summaries.sentence_space import EncodedSpace, TermSpace, by_centroid  # numpy

        space = TermSpace(sentences) if self.encoder is None else EncodedSpace(sentences, self.encoder)
        return by_centroid(space, sentences, self.balance)
