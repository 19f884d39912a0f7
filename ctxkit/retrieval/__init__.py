"""Retrieval: an index of chunks that answers with hits."""

from ctxkit.retrieval.encoders import (
    CachedEncoder,
    HashingEncoder,
    MultiVectorEncoder,
    SentenceTransformerEncoder,
    TokenStateEncoder,
)
from ctxkit.retrieval.fusion import Fusion, ReciprocalRankFusion, ScoreFusion
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.index import Change, Index, IndexStats
from ctxkit.retrieval.rerank import CrossEncoderReranker, MaxSimReranker, Reranker, reranked
from ctxkit.retrieval.searchable import Searchable, Writable

__all__ = [
    "CachedEncoder",
    "Change",
    "CrossEncoderReranker",
    "Fusion",
    "HashingEncoder",
    "Hit",
    "Index",
    "IndexStats",
    "MaxSimReranker",
    "MultiVectorEncoder",
    "ReciprocalRankFusion",
    "Reranker",
    "ScoreFusion",
    "Searchable",
    "SentenceTransformerEncoder",
    "TokenStateEncoder",
    "Writable",
    "reranked",
]
