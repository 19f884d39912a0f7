"""Cluster: hits that say about the same, and the one that stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxkit.retrieval.clusters.kmeans import compact
from ctxkit.retrieval.clusters.number import Clusters, clustered
from ctxkit.retrieval.clusters.space import Space
from ctxkit.retrieval.clusters.vectors import unit_rows
from ctxkit.retrieval.hit import Hit


@dataclass(frozen=True)
class Cluster:
    """Hits that say about the same.

    hits: best first. representative: the one of them that stands for all.
    weight: summed relevance of the hits. covered: how much of it the representative covers, relevance times cosine.
    """

    hits: tuple[Hit, ...]
    representative: Hit
    weight: float
    covered: float

    @property
    def ids(self) -> tuple[str, ...]:
        """Chunk ids of all hits."""
        return tuple(hit.chunk.id for hit in self.hits)

    @property
    def locations(self) -> tuple[str, ...]:
        """Where the hits can be opened, each place once."""
        return tuple(dict.fromkeys(hit.chunk.location for hit in self.hits))

    @property
    def others(self) -> tuple[Hit, ...]:
        """The hits but the representative, best first."""
        return tuple(hit for hit in self.hits if hit is not self.representative)

    def __len__(self) -> int:
        return len(self.hits)

    def __repr__(self) -> str:
        name = self.representative.chunk.id
        return f"Cluster({name!r}, {len(self)} hits, weight={self.weight:.3f}, covered={self.covered:.3f})"


def cluster(
    hits: Sequence[Hit],
    vectors: np.ndarray,
    k: Clusters = "silhouette",
    *,
    balance: float = 0.7,
    seed: int = 0,
) -> tuple[Cluster, ...]:
    """The hits in clusters, the weightiest first; every hit is in exactly one.

    vectors: one per hit, [hits, dims], of any length; `hit_vectors` makes them.
    k: "silhouette" takes the k of 2..min(8, n/2) that parts them best; "paper" is 4, which is what re-implementations
        of CRAG (arXiv 2406.00029) give as its number; "budget" the smallest k whose representatives cover 90 % of the
        summed relevance, a hit being covered in proportion to its cosine with its representative; or a number.
    balance: lambda in [0, 1] of the representative: argmax of lambda * relevance - (1 - lambda) * distance from the
        centre, relevance as a share of the cluster's best.

    Deterministic, and but for ties the same for any order of the hits.
    Raises ValueError for a number out of range or vectors that do not go with the hits.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"`balance` must be in [0, 1], got {balance!r}")
    rows = unit_rows(vectors, len(hits))
    order = sorted(range(len(hits)), key=lambda i: _place(hits[i]))
    ranked = [hits[i] for i in order]
    space = Space(compact(rows[order]), np.array([hit.relevance for hit in ranked], np.float64), balance, seed)
    labels = clustered(space, k)
    if not ranked:
        return ()
    covered, chosen = space.covered(labels), space.representatives(labels)
    found = [_cluster(ranked, np.flatnonzero(labels == i), ranked[at], covered) for i, at in enumerate(chosen.tolist())]
    return tuple(sorted(found, key=lambda one: (-one.weight, _place(one.hits[0]))))


def _cluster(hits: Sequence[Hit], members: np.ndarray, representative: Hit, covered: np.ndarray) -> Cluster:
    own = tuple(hits[i] for i in members.tolist())
    return Cluster(own, representative, sum(hit.relevance for hit in own), float(covered[members].sum()))


def _place(hit: Hit) -> tuple[float, str, int]:
    """Best first, whatever order the hits came in."""
    return (-hit.relevance, hit.chunk.id, hit.rank)
