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
    return hits_of(request, runs, ranked(runs, request.mode, fusion), snapshot.chunk)


def check_search(k: int, mode: str, sources: object = None) -> None:
    """Raise ValueError for arguments of a search that mean nothing."""
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k!r}")
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}")
    if isinstance(sources, str):
        raise ValueError(f"`sources` must be a list of names, got the single string {sources!r}")


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a search found in the end, best first. relevances: of each of its hits."""

    run: Run
    relevances: Sequence[float]


def ranked(runs: Mapping[str, Run], mode: Mode, fusion: Fusion) -> Ranked:
    """One run of what each method found: the fusion of all for "hybrid", else that of `mode`."""
    if mode == "hybrid":
        final, kind = fusion.fuse(runs), fusion.kind
    else:
        final, kind = runs.get(mode, Run.empty()), mode
    return Ranked(final, relevances(final, kind))


def hits_of(request: Request, runs: Mapping[str, Run], found: Ranked, chunk_at: Callable[[int], Chunk]) -> list[Hit]:
    """The first `request.k` of `found` as hits, whatever the runs came from.

    runs: what each method found; the hits say where it put them. chunk_at: the chunk of a position of these runs.
    """
    places = {method: {p: i for i, p in enumerate(run.positions.tolist())} for method, run in runs.items()}
    hits = []
    for at, position in enumerate(found.run.positions[: request.k].tolist()):
        chunk = chunk_at(position)
        rankings = tuple(
            Ranking(method, place[position] + 1, float(runs[method].scores[place[position]]))
            for method, place in places.items()
            if position in place
        )
        evidence = lexical_evidence(request.query, chunk.text)
        hits.append(Hit(chunk, at + 1, float(found.run.scores[at]), found.relevances[at], rankings, evidence))
    return hits


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
