"""The way of the data: documents to an index, hits to a plan, a plan to an answer with its sources."""

from ctxkit.pipeline.citations import Citation, Citer
from ctxkit.pipeline.compressors import best_offline, compressor_named, method_names
from ctxkit.pipeline.crag import ClusteredRag, Crag
from ctxkit.pipeline.ingest import IngestReport, ingest
from ctxkit.pipeline.pipeline import Answer, AnswerStream, Pipeline

__all__ = [
    "Answer",
    "AnswerStream",
    "Citation",
    "Citer",
    "ClusteredRag",
    "Crag",
    "IngestReport",
    "Pipeline",
    "best_offline",
    "compressor_named",
    "ingest",
    "method_names",
]
