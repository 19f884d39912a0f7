"""Retrieval: an index of chunks that answers with hits."""

from ctxkit.retrieval.encoders import (
    CachedEncoder,
    HashingEncoder,
    MultiVectorEncoder,
    SentenceTransformerEncoder,
    TokenStateEncoder,
)
from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions
from ctxkit.retrieval.fusion import Fusion, ReciprocalRankFusion, ScoreFusion
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.index import Change, Index, IndexStats
from ctxkit.retrieval.multivector.options import BuildOptions, SearchOptions
from ctxkit.retrieval.rerank import CrossEncoderReranker, MaxSimReranker, Reranker, reranked
from ctxkit.retrieval.searchable import Searchable, Writable
from ctxkit.retrieval.to_budget import retrieve_to_budget

__all__ = [
    "BuildOptions",
    "CachedEncoder",
    "Change",
    "CrossEncoderReranker",
    "Fusion",
    "HashingEncoder",
    "HnswOptions",
    "Hit",
    "Index",
    "IndexStats",
    "IvfOptions",
    "MaxSimReranker",
    "MultiVectorEncoder",
    "ReciprocalRankFusion",
    "Reranker",
    "ScoreFusion",
    "SearchOptions",
    "Searchable",
    "SentenceTransformerEncoder",
    "TokenStateEncoder",
    "Writable",
    "reranked",
    "retrieve_to_budget",
]
