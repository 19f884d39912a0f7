"""Hits that say the same: clusters of them and their representatives, and two ways to pick hits that differ."""

from ctxkit.retrieval.clusters.cluster import Cluster, cluster
from ctxkit.retrieval.clusters.mmr import mmr
from ctxkit.retrieval.clusters.near_duplicates import Shingle, novel, shingles, without_near_duplicates
from ctxkit.retrieval.clusters.number import PAPER_K, Clusters
from ctxkit.retrieval.clusters.vectors import hit_vectors, pooled

__all__ = [
    "PAPER_K",
    "Cluster",
    "Clusters",
    "Shingle",
    "cluster",
    "hit_vectors",
    "pooled",
    "mmr",
    "novel",
    "shingles",
    "without_near_duplicates",
]
