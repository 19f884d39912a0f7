"""Search in a database that ranks by itself: exact filters, stable ties, and the same hits as an `Index` makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval.filters import predicate
from ctxkit.retrieval.fusion import Fusion, Run, best
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.search import Request, hits_of, ranked
from ctxkit.retrieval.terms import terms
from ctxkit_connectors.databases.database import Database, Scored

_DECIMALS = 6  # what float32 sums agree on, whatever the order of summation; makes ties stable
_SPARE = 16  # asked for beyond the depth, so that ties at the cut are seen
_MOST_TIED = 4096  # where more than these have one score, the database chooses among them

Fetch = Callable[[int, bool], list[Scored]]
"""Asks the database for so many, exactly or not."""


@dataclass
class DatabaseSearch:
    """One search. request: its `sources` are exact names. exact: never ask an approximate index."""

    database: Database
    request: Request
    exact: bool = False
    _chunks: dict[str, Chunk] = field(default_factory=dict)
    _verdicts: dict[str, bool] = field(default_factory=dict)

    def hits(self, fusion: Fusion) -> list[Hit]:
        """The hits; of a chunk that is deleted meanwhile there is none."""
        depth = max(self.request.k, fusion.depth)
        found = {method: self._found(fetch, depth) for method, fetch in self._methods().items()}
        while True:
            ids = sorted({scored.id for run in found.values() for scored in run})  # position is the place in here
            runs = {method: _run(scored, ids, depth) for method, scored in found.items()}
            multi_vector = self.database.identity.multi_vector
            final = ranked(runs, self.request.mode, fusion, multi_vector=multi_vector)
            wanted = [ids[position] for position in final.run.first(self.request.k).positions.tolist()]
            gone = self._fetch(wanted)
            if not gone:
                return hits_of(self.request, runs, final, [self._chunks[id_] for id_ in wanted])
            found = {method: [one for one in run if one.id not in gone] for method, run in found.items()}

    def _methods(self) -> dict[str, Fetch]:
        request, database, sources = self.request, self.database, self.request.sources
        methods: dict[str, Fetch] = {}
        if request.vectors is not None:
            vector = request.vectors[0] if self.database.identity.multi_vector else request.vectors[0][:1]
            methods["dense"] = lambda limit, exact: database.nearest(vector, limit, sources, exact=exact)
        words = list(dict.fromkeys(terms(request.query))) if request.mode != "dense" else []
        if words:
            methods["lexical"] = lambda limit, _: database.matching(words, limit, sources)
        return methods

    def _found(self, fetch: Fetch, depth: int) -> list[Scored]:
        """What a method finds among the allowed chunks: at least `depth`, unless there are no more.

        The database is asked for more and more until so many pass `where`, and none that it kept back can tie with the
        last of them.
        """
        limit, exact = depth + _SPARE, self.exact
        while True:
            found = [Scored(id_, round(score, _DECIMALS)) for id_, score in fetch(limit, exact)]
            kept = self._allowed(found)
            if len(found) < limit:
                if exact or len(kept) >= depth or not self.database.approximate():
                    return kept
                exact = True  # an approximate index gives up early, above all under a filter
            elif len(kept) >= depth and (found[-1].score < kept[depth - 1].score or limit >= depth + _MOST_TIED):
                return kept
            else:
                limit *= 4

    def _allowed(self, found: Sequence[Scored]) -> list[Scored]:
        if self.request.where is None:
            return list(found)
        where = predicate(self.request.where)
        new = [scored.id for scored in found if scored.id not in self._verdicts]
        gone = self._fetch(new)
        self._verdicts.update({id_: id_ not in gone and bool(where(self._chunks[id_])) for id_ in new})
        return [scored for scored in found if self._verdicts[scored.id]]

    def _fetch(self, ids: Sequence[str]) -> set[str]:
        """Get the chunks of `ids`; returns the ids of which there is none."""
        unknown = [id_ for id_ in ids if id_ not in self._chunks]
        if unknown:
            self._chunks.update(self.database.chunks(unknown))
        return {id_ for id_ in unknown if id_ not in self._chunks}


def _run(found: Sequence[Scored], ids: Sequence[str], depth: int) -> Run:
    """The best `depth`; ties by the order of `ids`."""
    positions = np.searchsorted(np.array(ids, dtype=object), np.array([scored.id for scored in found], dtype=object))
    return best(positions.astype(np.int64), np.array([scored.score for scored in found], np.float64), depth)
