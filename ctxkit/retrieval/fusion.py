"""Fusion: one ranking out of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

_DECIMALS = 9  # more than the methods' scores are good for; makes ties stable


@dataclass(frozen=True)
class Run:
    """What one method found, best first; equal scores in order of position.

    positions: int64 [found]. scores: float64 [found].
    """

    positions: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def first(self, count: int) -> Run:
        """The `count` best."""
        return Run(self.positions[:count], self.scores[:count])

    @classmethod
    def empty(cls) -> Run:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float64))


def best(positions: np.ndarray, scores: np.ndarray, depth: int) -> Run:
    """The `depth` best, ties by the lower position. Linear in the number of scores."""
    return best_and_ties(positions, scores, depth).first(depth)


def best_and_ties(positions: np.ndarray, scores: np.ndarray, depth: int) -> Run:
    """The `depth` best, at least 1, and all that tie with the last of them, so that a caller can order the ties."""
    if depth < len(scores):
        bound = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        kept = scores >= bound
        positions, scores = positions[kept], scores[kept]
    order = np.lexsort((positions, -scores))
    return Run(positions[order].astype(np.int64), scores[order])


class Fusion(Protocol):
    """Makes one run of several.

    depth: how many of each method's hits it looks at (more where more are asked for).
    kind: what its scores are, for `relevance`: "scores" or "ranks".
    """

    @property
    def depth(self) -> int: ...

    @property
    def kind(self) -> str: ...

    def fuse(self, runs: Mapping[str, Run]) -> Run: ...


@dataclass(frozen=True)
class ReciprocalRankFusion:
    """Sum of `weight / (k + rank)` over the methods (Cormack, Clarke and Buettcher, SIGIR 2009).

    k: damps the lead of the first ranks.
    weights: factor per method, 1 where absent.
    depth: hits taken from each method.
    """

    k: float = 60.0
    weights: Mapping[str, float] = field(default_factory=dict)
    depth: int = 200
    kind = "ranks"

    def fuse(self, runs: Mapping[str, Run]) -> Run:
        scores: dict[int, float] = {}
        for method, run in runs.items():
            weight = self.weights.get(method, 1.0)
            for rank, position in enumerate(run.positions.tolist(), start=1):
                scores[position] = scores.get(position, 0.0) + weight / (self.k + rank)
        return best(np.array(list(scores), np.int64), np.array(list(scores.values())), len(scores))


@dataclass(frozen=True)
class ScoreFusion:
    """Sum of `weight * score / best score` over the methods: how clearly a method prefers a hit counts as well.

    The convex combination of Bruch, Gai and Ingber (arXiv 2210.11934), scaled by each method's best score. A hit that
    a method did not find gets 0 from it, or its last score where the method was cut off at `depth`. Negative scores
    count as 0. Against reciprocal ranks, hit@1 is 0.952 and 0.936 on xquad-en, nDCG@10 0.406 and 0.398 on cranfield
    (`benchmarks/retrieval_quality.py`); any dense weight from 0.5 to 0.7 does about as well, also for token vectors.

    weights: factor per method, 1 where absent. depth: hits taken from each method.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"dense": 0.65, "lexical": 0.35})
    depth: int = 200
    kind = "scores"

    def fuse(self, runs: Mapping[str, Run]) -> Run:
        positions = np.unique(np.concatenate([run.positions for run in runs.values()] or [Run.empty().positions]))
        scores = np.zeros(len(positions))
        for method, run in runs.items():
            if len(run) and run.scores[0] > 0:
                reached = np.full(len(positions), run.scores[-1] if len(run) >= self.depth else 0.0)
                reached[np.searchsorted(positions, run.positions)] = run.scores
                scores += self.weights.get(method, 1.0) * np.maximum(reached, 0.0) / run.scores[0]
        return best(positions, np.round(scores, _DECIMALS), len(positions))
