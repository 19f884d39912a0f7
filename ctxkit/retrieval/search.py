"""Search: from a query and a snapshot to hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Match, Ranking, Vectors
from ctxkit.retrieval.evidence import lexical_evidence, token_evidence
from ctxkit.retrieval.filters import Where, checked
from ctxkit.retrieval.fusion import Fusion, Run
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.matches import matches_of
from ctxkit.retrieval.relevance import relevances
from ctxkit.retrieval.snapshot import Snapshot

Mode = Literal["hybrid", "dense", "lexical"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Request:
    """One search, as `Index.search` takes it. `vectors`: of the query alone, None for lexical search."""

    query: str
    vectors: Vectors | None
    k: int
    mode: Mode
    where: Where | None = None
    sources: Sequence[str] | None = None


def answer(snapshot: Snapshot, request: Request, fusion: Fusion) -> list[Hit]:
    """The hits. Call inside `store.reading()` of the snapshot's generation."""
    runs = _runs(snapshot, request, fusion.depth)
    found = ranked(runs, request.mode, fusion, snapshot.ordered, multi_vector=snapshot.multi_vector)
    positions = found.run.first(request.k).positions
    chunks = snapshot.chunks(positions.tolist())
    return hits_of(request, runs, found, chunks, _matches(snapshot, request, positions, chunks))


def check_search(k: int, mode: str, where: Where | None = None, sources: object = None) -> None:
    """Raise ValueError for arguments of a search that mean nothing."""
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k!r}")
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}")
    refuse_string("sources", sources)
    if isinstance(where, Mapping):
        checked(where)


def refuse_string(name: str, value: object) -> None:
    """Raise ValueError for a single string where a list of names belongs."""
    if isinstance(value, str):
        raise ValueError(f"`{name}` must be a list of names, got the single string {value!r}")


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a search found in the end, best first. relevances: of each of its hits."""

    run: Run
    relevances: Sequence[float]


def ranked(
    runs: Mapping[str, Run],
    mode: Mode,
    fusion: Fusion,
    order: Callable[[Run], Run] = lambda run: run,
    *,
    multi_vector: bool = False,
) -> Ranked:
    """One run of what each method found: the fusion of all for "hybrid", else that of `mode`. order: of ties.

    multi_vector: whether dense scores are MaxSim's, which spread otherwise.
    """
    if mode == "hybrid":
        final, kind = order(fusion.fuse(runs)), fusion.kind
    else:
        final = runs.get(mode, Run.empty())
        kind = "maxsim" if mode == "dense" and multi_vector else mode
    return Ranked(final, relevances(final, kind))


def hits_of(
    request: Request,
    runs: Mapping[str, Run],
    found: Ranked,
    chunks: Sequence[Chunk],
    matches: Sequence[tuple[Match, ...]] = (),
) -> list[Hit]:
    """The first hits of `found`, as many as there are chunks, whatever the runs came from.

    runs: what each method found; the hits say where it put them. chunks: of the first positions of `found`.
    matches: of each chunk, where they are known.
    """
    places = {method: {p: i for i, p in enumerate(run.positions.tolist())} for method, run in runs.items()}
    hits = []
    for at, (position, chunk) in enumerate(zip(found.run.positions.tolist(), chunks, strict=False)):
        rankings = tuple(
            Ranking(method, place[position] + 1, float(runs[method].scores[place[position]]))
            for method, place in places.items()
            if position in place
        )
        own = matches[at] if matches else ()
        evidence = token_evidence(own, chunk.text) if own else lexical_evidence(request.query, chunk.text)
        hits.append(Hit(chunk, at + 1, float(found.run.scores[at]), found.relevances[at], rankings, evidence, own))
    return hits


def _matches(
    snapshot: Snapshot, request: Request, positions: np.ndarray, chunks: Sequence[Chunk]
) -> Sequence[tuple[Match, ...]]:
    """Which token of each chunk answered which of the query, for indexes of one vector per token."""
    if request.vectors is None or not snapshot.multi_vector or not len(positions):
        return ()
    vectors, spans = snapshot.vectors(positions), snapshot.spans(positions)
    return matches_of(request.query, request.vectors, chunks, vectors, spans)


def _runs(snapshot: Snapshot, request: Request, depth: int) -> dict[str, Run]:
    """What each method found, best first."""
    if not len(snapshot):
        return {}
    allowed = snapshot.allowed(request.where, request.sources)
    depth = max(request.k, depth)
    runs: dict[str, Run] = {}
    if request.vectors is not None:
        runs["dense"] = snapshot.ordered(snapshot.view.search(request.vectors[0], depth, allowed), depth)
    if request.mode != "dense":
        runs["lexical"] = snapshot.ordered(snapshot.lexical.search(request.query, depth, allowed), depth)
    return runs
