"""Retrieval: an index of chunks that answers with hits."""

from ctxkit.retrieval.encoders import (
    CachedEncoder,
    CentredEncoder,
    HashingEncoder,
    MultiVectorEncoder,
    SentenceTransformerEncoder,
    TokenStateEncoder,
)
from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions
from ctxkit.retrieval.fusion import Fusion, ReciprocalRankFusion, ScoreFusion
from ctxkit.retrieval.heat_map import HeatMap
from ctxkit.retrieval.heat_map_html import page as heat_map_page
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.index import Change, Index, IndexStats
from ctxkit.retrieval.merge import Merged, merge
from ctxkit.retrieval.multivector.options import BuildOptions, SearchOptions
from ctxkit.retrieval.placing import placings
from ctxkit.retrieval.rerank import CrossEncoderReranker, MaxSimReranker, Reranker, reranked
from ctxkit.retrieval.searchable import Searchable, Writable
from ctxkit.retrieval.to_budget import retrieve_to_budget

__all__ = [
    "BuildOptions",
    "CachedEncoder",
    "CentredEncoder",
    "Change",
    "CrossEncoderReranker",
    "Fusion",
    "HashingEncoder",
    "HeatMap",
    "HnswOptions",
    "Hit",
    "Index",
    "IndexStats",
    "IvfOptions",
    "MaxSimReranker",
    "Merged",
    "MultiVectorEncoder",
    "ReciprocalRankFusion",
    "Reranker",
    "ScoreFusion",
    "SearchOptions",
    "Searchable",
    "SentenceTransformerEncoder",
    "TokenStateEncoder",
    "heat_map_page",
    "merge",
    "placings",
    "Writable",
    "reranked",
    "retrieve_to_budget",
]
