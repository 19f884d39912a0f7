"""Search: from a query and a snapshot to hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ctxkit.protocols import Match, Ranking, Vectors
from ctxkit.retrieval.evidence import lexical_evidence, token_evidence
from ctxkit.retrieval.filters import Where
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
    if request.mode == "hybrid":
        final, kind = fusion.fuse(runs), fusion.kind
        final = snapshot.ordered(final, len(final))
    else:
        final = runs.get(request.mode, Run.empty())
        kind = "maxsim" if request.mode == "dense" and snapshot.multi_vector else request.mode
    return _hits(snapshot, request, final, runs, relevances(final, kind))


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


def _hits(
    snapshot: Snapshot, request: Request, final: Run, runs: Mapping[str, Run], probabilities: Sequence[float]
) -> list[Hit]:
    places = {method: {p: i for i, p in enumerate(run.positions.tolist())} for method, run in runs.items()}
    chosen = final.first(request.k)
    chunks = snapshot.chunks(chosen.positions.tolist())
    matches: list[tuple[Match, ...]] = [()] * len(chunks)
    if request.vectors is not None and snapshot.multi_vector and chunks:
        vectors, spans = snapshot.vectors(chosen.positions), snapshot.spans(chosen.positions)
        matches = matches_of(request.query, request.vectors, chunks, vectors, spans)
    hits = []
    for at, (position, chunk) in enumerate(zip(chosen.positions.tolist(), chunks, strict=True)):
        rankings = tuple(
            Ranking(method, place[position] + 1, float(runs[method].scores[place[position]]))
            for method, place in places.items()
            if position in place
        )
        own = matches[at]
        evidence = token_evidence(own, chunk.text) if own else lexical_evidence(request.query, chunk.text)
        hits.append(Hit(chunk, at + 1, float(chosen.scores[at]), probabilities[at], rankings, evidence, matches[at]))
    return hits
