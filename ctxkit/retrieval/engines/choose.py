"""Which engine an index gets: by what its encoder makes, and by what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ctxkit.retrieval.engines.base import Engine
from ctxkit.retrieval.engines.faiss_ann import HnswEngine, IvfEngine
from ctxkit.retrieval.engines.faiss_flat import FlatEngine
from ctxkit.retrieval.engines.late_interaction import LateInteractionEngine
from ctxkit.retrieval.engines.recipes import Recipe
from ctxkit.retrieval.engines.rows_engine import RowsEngine
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.options import SearchOptions
from ctxkit.retrieval.storage.settings import Settings

_OVER_ROWS: Mapping[str, type[IvfEngine] | type[HnswEngine]] = {"ivf": IvfEngine, "hnsw": HnswEngine}
_STATE = "state"


@dataclass(frozen=True)
class EngineOptions:
    """What may differ from one opening of an index to the next.

    search: how far a search of coded token vectors looks. ann: how an approximate index of faiss is made and searched,
    None for the defaults. device: where faiss searches, "cpu", "cuda", or None for what is there; coded token vectors
    are searched on a GPU only where "cuda" says so.
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    ann: Recipe | None = None
    device: str | None = None


def engine_for(settings: Settings, dims: int, options: EngineOptions, coded: CodedIndex | None = None) -> Engine:
    """The engine for vectors of `dims`. coded: documents that are coded already."""
    if settings.encoder.multi_vector:
        device = None if options.device == "cpu" else options.device
        exact = settings.engine.name == "exact"
        return LateInteractionEngine(dims, coded, options.search, exact=exact, device=device)
    if settings.engine.name in _OVER_ROWS:
        return _OVER_ROWS[settings.engine.name](options.ann, device=options.device)
    return FlatEngine(device=options.device)


def takes_long(settings: Settings) -> bool:
    """Whether making the engine takes long, so that it is worth keeping."""
    return settings.engine.name in _OVER_ROWS


def states_of(engine: Engine) -> dict[str, np.ndarray]:
    """What `restored` makes an engine of that takes long to make."""
    return {_STATE: engine.state()} if isinstance(engine, RowsEngine) else {}


def restored(settings: Settings, options: EngineOptions, states: Mapping[str, np.ndarray]) -> Engine:
    """The engine that `states_of` was asked of. Raises StoreError and IndexMismatch where it cannot be."""
    return _OVER_ROWS[settings.engine.name].restore(states[_STATE], options.ann, device=options.device)
