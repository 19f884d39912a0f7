"""Cosine k-means: points on the sphere, centres by k-means++."""

from __future__ import annotations

import numpy as np

_SAME = 1 - 1e-10  # points of at least this cosine are one point
_TIES = 9  # similarities that agree so far are equal, whatever the order of summation
_MOST_ROUNDS = 100


def kmeans(points: np.ndarray, k: int, *, seed: int = 0, starts: int = 4) -> np.ndarray:
    """A cluster for each point, int64 [n], numbered in order of first appearance.

    points: unit rows [n, dims]. At most k clusters: fewer where there are fewer different points.
    The best of `starts` runs by summed similarity to the centres (Dhillon and Modha, "Concept decompositions", 2001),
    each seeded by k-means++ (Arthur and Vassilvitskii, 2007). Same points, same order and same seed: same clusters.
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k!r}")
    if k == 1 or len(points) <= 1:
        return np.zeros(len(points), np.int64)
    same = _renumbered((points @ points.T >= _SAME).argmax(axis=1))
    if same.max() < k:
        return same
    random = np.random.default_rng(seed)
    runs = [_run(points, _seeded(points, k, random)) for _ in range(starts)]
    return _renumbered(max(runs, key=lambda run: round(run[0], _TIES))[1])


def compact(points: np.ndarray) -> np.ndarray:
    """The points in at most n dimensions, [n, min(n, dims)], cosines as they were: k-means reads nothing else."""
    if len(points) >= points.shape[1]:
        return points
    return np.linalg.qr(points.T)[1].T


def centres_of(points: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """The directions of the clusters' sums, [k, dims]; zeros for a cluster that cancels out, or has no point."""
    sums = np.stack([points[labels == label].sum(axis=0) for label in range(k)])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 1e-12, sums / np.maximum(lengths, 1e-12), 0.0)


def _seeded(points: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """k centres: points, each drawn by its distance from those before."""
    chosen = [int(random.integers(len(points)))]
    distances = 1 - points @ points[chosen[0]]
    while len(chosen) < k:
        weights = np.where(distances > 1e-12, distances, 0.0)
        total = weights.sum()
        chosen.append(int(random.choice(len(points), p=weights / total)) if total > 0 else len(chosen))
        distances = np.minimum(distances, 1 - points @ points[chosen[-1]])
    return points[chosen]


def _run(points: np.ndarray, centres: np.ndarray) -> tuple[float, np.ndarray]:
    """Lloyd's rounds until nothing moves: the summed similarity, and the labels."""
    labels = np.full(len(points), -1)
    for _ in range(_MOST_ROUNDS):
        similar = np.round(points @ centres.T, _TIES)  # [n, k]
        moved = _none_empty(similar.argmax(axis=1), similar)
        if (moved == labels).all():
            break
        labels = moved
        centres = centres_of(points, labels, len(centres))
    return float((points * centres[labels]).sum()), labels


def _none_empty(labels: np.ndarray, similar: np.ndarray) -> np.ndarray:
    """An empty cluster takes the point that is least like its own centre and does not stand alone."""
    for label in np.flatnonzero(np.bincount(labels, minlength=similar.shape[1]) == 0).tolist():
        own = similar[np.arange(len(labels)), labels]
        alone = np.bincount(labels, minlength=similar.shape[1])[labels] == 1
        labels[int(np.where(alone, np.inf, own).argmin())] = label
    return labels


def _renumbered(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.reshape(-1)]
