from ctxkit.retrieval.engines.faiss_flat import FlatEngine

IvfEngine = HnswEngine = FlatEngine
