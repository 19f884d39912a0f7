"""Which engine an index gets: by what its encoder makes, and by what it was made with."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctxkit.retrieval.engines.base import Engine
from ctxkit.retrieval.engines.faiss_ann import HnswEngine, IvfEngine
from ctxkit.retrieval.engines.faiss_flat import FlatEngine
from ctxkit.retrieval.engines.late_interaction import LateInteractionEngine
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.options import SearchOptions
from ctxkit.retrieval.storage.settings import Settings


@dataclass(frozen=True)
class EngineOptions:
    """What may differ from one opening of an index to the next.

    search: how far a search of coded token vectors looks. device: "cpu", "cuda", or None for what is there.
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    device: str | None = None


def engine_for(settings: Settings, dims: int, options: EngineOptions, coded: CodedIndex | None) -> Engine:
    """The engine for vectors of `dims`. coded: documents that are coded already."""
    if settings.encoder.multi_vector:
        return LateInteractionEngine(dims, coded, options.search, exact=settings.engine.name == "exact")
    if settings.engine.name == "ivf":
        return IvfEngine(dims)
    if settings.engine.name == "hnsw":
        return HnswEngine(dims)
    return FlatEngine(dims)
