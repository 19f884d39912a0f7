"""Centroids of token vectors: one small k-means per group of tokens instead of one large k-means over all.

A group is a vocabulary id where ids are known: the token-aware clustering of TACHIOM (arXiv 2604.28142). Where they are
not, a coarse k-means makes the groups. Either way the work is the sum over groups of size * centroids, not tokens *
centroids. Deterministic by its seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ITERATIONS = 4
SHARED = -1
"""The group of a centroid that is of no one vocabulary id."""

_POINTS_PER_CENTROID = 64  # more are not looked at while centroids move
_RARE_TOKENS = 16  # groups under this size are thrown together and grouped by similarity
_CROWDING = 0.85  # a group gets centroids by size ** this: large groups are denser
_TABLE_VALUES = 1 << 22  # similarities held at once


@dataclass(frozen=True)
class Clustering:
    """rows: float32 [centroids, dims]. codes: int64 [tokens], the centroid of each token.

    groups: int64 [centroids], the vocabulary id of the tokens of each, or SHARED.
    """

    rows: np.ndarray
    codes: np.ndarray
    groups: np.ndarray


def default_centroids(tokens: int) -> int:
    """16 * sqrt(tokens), at least 1.

    >>> default_centroids(1_000_000)
    16000
    """
    return max(1, min(tokens, round(16 * tokens**0.5)))


def cluster(values: np.ndarray, token_ids: np.ndarray | None, centroids: int, seed: int = 0) -> Clustering:
    """About `centroids` clusters of float32 [tokens, dims]: never more than tokens, at least one per large group.

    token_ids: int [tokens], the vocabulary id of each token, or None.
    """
    rng = np.random.default_rng(seed)
    groups = (
        _coarse_groups(values, centroids, rng) if token_ids is None else _by_token(values, token_ids, centroids, rng)
    )
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    members = np.split(order, cuts) if len(order) else []
    shares = _shares(np.array([len(own) for own in members], np.int64), centroids)
    codes = np.zeros(len(values), np.int64)
    rows, labels = [np.zeros((0, values.shape[1]), np.float32)], [np.zeros(0, np.int64)]
    made = 0
    for own, share in zip(members, shares, strict=True):
        found, places = _kmeans(values[own], int(share), rng)
        rows.append(found)
        labels.append(np.full(len(found), max(int(groups[own[0]]), SHARED), np.int64))
        codes[own] = made + places
        made += len(found)
    return _shuffled(np.concatenate(rows), codes, np.concatenate(labels), rng)


def nearest(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """int64 [tokens]: the row at the least Euclidean distance."""
    half = (rows * rows).sum(axis=1) / 2
    step = max(1, _TABLE_VALUES // max(1, len(rows)))
    found = [(values[at : at + step] @ rows.T - half).argmax(axis=1) for at in range(0, len(values), step)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def assigned(values: np.ndarray, token_ids: np.ndarray | None, rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """int64 [tokens]: a centroid for each of float32 [tokens, dims], the nearest of its own group.

    rows, groups: as in Clustering. Tokens whose id has no centroids go to the nearest of the shared ones, and where
    there are none, or no ids, to the nearest of all.
    """
    if token_ids is None:
        return nearest(values, rows)
    codes = np.full(len(values), -1, np.int64)
    order = np.argsort(token_ids, kind="stable")
    by_group = np.argsort(groups, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(token_ids[order])) + 1) if len(order) else []:
        first, last = np.searchsorted(groups, [token_ids[own[0]], token_ids[own[0]] + 1], sorter=by_group)
        if first < last:
            members = by_group[first:last]
            codes[own] = members[nearest(values[own], rows[members])]
    left = np.flatnonzero(codes < 0)
    shared = np.flatnonzero(groups == SHARED) if (groups == SHARED).any() else np.arange(len(rows))
    if len(left):
        codes[left] = shared[nearest(values[left], rows[shared])]
    return codes


def _coarse_groups(values: np.ndarray, centroids: int, rng: np.random.Generator) -> np.ndarray:
    """Groups by similarity, below 0, about sqrt(centroids) of them: both levels then cost the same."""
    return SHARED - _kmeans(values, max(1, round(centroids**0.5)), rng)[1]


def _by_token(values: np.ndarray, token_ids: np.ndarray, centroids: int, rng: np.random.Generator) -> np.ndarray:
    """The token's id, and for rare tokens a group of similar rare tokens, below 0."""
    _, places, sizes = np.unique(token_ids, return_inverse=True, return_counts=True)
    groups = np.asarray(token_ids, np.int64).copy()
    rare = np.flatnonzero((sizes[places] < _RARE_TOKENS) | (groups < 0))
    if len(rare):
        count = max(1, round((centroids * len(rare) / len(values)) ** 0.5))
        groups[rare] = SHARED - _kmeans(values[rare], count, rng)[1]
    return groups


def _shares(sizes: np.ndarray, centroids: int) -> np.ndarray:
    """Centroids per group: size ** 0.85 in proportion, at least 1, at most its size."""
    weights = sizes**_CROWDING
    low, high = 0.0, float(centroids)
    for _ in range(50):  # the factor at which the shares, floors included, add up
        middle = (low + high) / 2
        total = np.clip(np.floor(weights * middle), 1, sizes).sum()
        low, high = (middle, high) if total < centroids else (low, middle)
    return np.clip(np.floor(weights * low), 1, sizes).astype(np.int64)


def _kmeans(values: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's k-means from random points: rows [<= count, dims] and the row of each value."""
    if count <= 1 or len(values) <= 1:
        return values.mean(axis=0, keepdims=True, dtype=np.float32), np.zeros(len(values), np.int64)
    count = min(count, len(values))
    sample = values
    if len(values) > count * _POINTS_PER_CENTROID:
        sample = values[np.sort(rng.choice(len(values), count * _POINTS_PER_CENTROID, replace=False))]
    rows = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    for _ in range(ITERATIONS):
        rows = _means(sample, nearest(sample, rows), rows)
    return rows, nearest(values, rows)


def _means(values: np.ndarray, codes: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Means of the values by code; a row without values stays where it was."""
    order = np.argsort(codes, kind="stable")
    used, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    rows = before.copy()
    rows[used] = np.add.reduceat(values[order], starts, axis=0) / counts[:, None].astype(np.float32)
    return rows


def _shuffled(rows: np.ndarray, codes: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> Clustering:
    """Similar centroids apart: the search takes maxima of 16 neighbours, and these should differ."""
    order = rng.permutation(len(rows))
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows))
    return Clustering(rows[order], place[codes], groups[order])


def blocks(total: int, step: int) -> Iterator[slice]:
    """Slices of `step` that cover `total`."""
    yield from (slice(at, min(at + step, total)) for at in range(0, total, step))
