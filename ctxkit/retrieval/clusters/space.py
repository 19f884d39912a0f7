"""Space: hits as points with a relevance; what a clustering of them is worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctxkit.retrieval.clusters.kmeans import centres_of, kmeans


@dataclass(frozen=True)
class Space:
    """points: unit rows [n, dims]. relevance: float64 [n], 0 or more. balance: lambda of the representatives."""

    points: np.ndarray
    relevance: np.ndarray
    balance: float
    seed: int = 0

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def similar(self) -> np.ndarray:
        """Cosine of each pair, float64 [n, n]."""
        return self.points @ self.points.T

    def labels(self, k: int) -> np.ndarray:
        """int64 [n]: k clusters at most."""
        return kmeans(self.points, k, seed=self.seed)

    def representatives(self, labels: np.ndarray) -> np.ndarray:
        """The point that stands for each cluster, int64 [clusters].

        argmax of lambda * relevance - (1 - lambda) * distance, relevance as a share of the cluster's best, distance
        the cosine distance from the centre; the earliest of equals.
        """
        centres = centres_of(self.points, labels, int(labels.max()) + 1)
        far = 1 - (self.points * centres[labels]).sum(axis=1)
        best = np.zeros(len(centres))
        np.maximum.at(best, labels, self.relevance)
        share = self.relevance / np.where(best > 0, best, 1.0)[labels]
        worth = np.round(self.balance * share - (1 - self.balance) * far, 9)
        return np.array([int(np.where(labels == i, worth, -np.inf).argmax()) for i in range(len(centres))])

    def covered(self, labels: np.ndarray) -> np.ndarray:
        """Of each point's relevance what its cluster's representative covers, float64 [n]: in proportion to cosine."""
        stands_for = self.representatives(labels)[labels]
        return self.relevance * np.clip(self.similar[np.arange(len(self)), stands_for], 0.0, 1.0)

    def coverable(self) -> np.ndarray:
        """What k representatives can cover at most, for k = 0..n, float64 [n + 1].

        Those k cover themselves, and every other point is at best covered by its nearest neighbour.
        """
        nearest = np.clip(np.where(np.eye(len(self), dtype=bool), 0.0, self.similar).max(axis=1, initial=0.0), 0.0, 1.0)
        gains = np.sort(self.relevance * (1 - nearest))[::-1]
        return float(self.relevance @ nearest) + np.concatenate([[0.0], np.cumsum(gains)])

    def silhouette(self, labels: np.ndarray) -> float:
        """Mean silhouette by cosine distance (Rousseeuw, 1987), in [-1, 1]; 0 for one cluster and for lone points."""
        sizes = np.bincount(labels)
        if len(sizes) < 2:
            return 0.0
        members = labels[:, None] == np.arange(len(sizes))  # [n, clusters]
        sums = np.clip(1 - self.similar, 0.0, 2.0) @ members
        inner = sums[members] / np.maximum(sizes[labels] - 1, 1)
        outer = np.where(members, np.inf, sums / sizes).min(axis=1)
        larger = np.maximum(inner, outer)
        scores = np.where(larger > 1e-12, (outer - inner) / np.maximum(larger, 1e-12), 0.0)
        return float(np.where(sizes[labels] > 1, scores, 0.0).mean())
