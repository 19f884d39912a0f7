"""Retrieval: an index of chunks that answers with hits."""

from ctxkit.retrieval.encoders import HashingEncoder, SentenceTransformerEncoder
from ctxkit.retrieval.fusion import Fusion, ReciprocalRankFusion, ScoreFusion
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.index import Change, Index, IndexStats

__all__ = [
    "Change",
    "Fusion",
    "HashingEncoder",
    "Hit",
    "Index",
    "IndexStats",
    "ReciprocalRankFusion",
    "ScoreFusion",
    "SentenceTransformerEncoder",
]
