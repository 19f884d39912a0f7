"""Every engine on a collection of one's own: what it costs, how fast it is and how well it finds."""

from ctxkit.retrieval.bench.collection import Collection, read_collection
from ctxkit.retrieval.bench.measures import ndcg, overlap, recall
from ctxkit.retrieval.bench.trial import METHODS, Encoding, Measured, Report, trial

__all__ = [
    "METHODS",
    "Collection",
    "Encoding",
    "Measured",
    "Report",
    "ndcg",
    "overlap",
    "read_collection",
    "recall",
    "trial",
]
