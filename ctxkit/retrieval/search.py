"""Search: from a query and a snapshot to hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Ranking
from ctxkit.retrieval.evidence import lexical_evidence
from ctxkit.retrieval.fusion import Fusion, Run
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.relevance import relevances
from ctxkit.retrieval.snapshot import Snapshot

Mode = Literal["hybrid", "dense", "lexical"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Request:
    """One search, as `Index.search` takes it. `vector`: float32 [query rows, dims], None for lexical search."""

    query: str
    vector: np.ndarray | None
    k: int
    mode: Mode
    where: Callable[[Chunk], bool] | None = None
    sources: Sequence[str] | None = None


def answer(snapshot: Snapshot, request: Request, fusion: Fusion) -> list[Hit]:
    """The hits. Call inside `store.reading()` of the snapshot's generation."""
    runs = _runs(snapshot, request, fusion.depth)
    if request.mode == "hybrid":
        final, kind = fusion.fuse(runs), fusion.kind
    else:
        final, kind = runs.get(request.mode, Run.empty()), request.mode
    return _hits(snapshot, request, final, runs, relevances(final, kind))


def _runs(snapshot: Snapshot, request: Request, depth: int) -> dict[str, Run]:
    """What each method found, best first."""
    if not len(snapshot):
        return {}
    allowed = snapshot.allowed(request.where, request.sources)
    depth = max(request.k, depth)
    runs: dict[str, Run] = {}
    if request.vector is not None:
        runs["dense"] = snapshot.dense.search(request.vector, depth, allowed)
    if request.mode != "dense":
        runs["lexical"] = snapshot.lexical.search(request.query, depth, allowed)
    return runs


def _hits(
    snapshot: Snapshot, request: Request, final: Run, runs: Mapping[str, Run], probabilities: Sequence[float]
) -> list[Hit]:
    places = {method: {p: i for i, p in enumerate(run.positions.tolist())} for method, run in runs.items()}
    hits = []
    for at, position in enumerate(final.positions[: request.k].tolist()):
        chunk = snapshot.chunk(position)
        rankings = tuple(
            Ranking(method, place[position] + 1, float(runs[method].scores[place[position]]))
            for method, place in places.items()
            if position in place
        )
        evidence = lexical_evidence(request.query, chunk.text)
        hits.append(Hit(chunk, at + 1, float(final.scores[at]), probabilities[at], rankings, evidence))
    return hits
