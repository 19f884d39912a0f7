"""How well a language model's own hidden states find, beside a model that was trained for it and BM25.

    python benchmarks/causal_encoder.py ../shared/data/xquad-en --every 6 --cache /tmp/vectors.sqlite

Prints nDCG@10 of dense and of hybrid search, per way of making vectors of SmolLM2-135M-Instruct (pooling, layer, with
and without Token Prepending, centred or not), of all-MiniLM-L6-v2, and of BM25. `+centred`: less the means of the
passages and of the queries that are not asked. Seconds are this process's own, for the passages.

--every: of the queries each n-th is asked. --cache: file for vectors, so that a second run encodes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from retrieval_quality import MEASURES, Query, chunks_of, per_query, queries_of

from ctxkit.models import LocalModel
from ctxkit.protocols import Encoder
from ctxkit.retrieval import CachedEncoder, CentredEncoder, HashingEncoder, Index, SentenceTransformerEncoder
from ctxkit.retrieval.document_text import document_text

LAYERS = 8  # of Token Prepending, of SmolLM2's 30
UPPER = 25


def main() -> None:
    parser = argparse.ArgumentParser(description="How well a language model's hidden states find")
    parser.add_argument("collection", type=Path)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    queries = list(queries_of(arguments.collection))
    asked = queries[:: arguments.every]
    others = [query for query in queries if query not in asked]
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.cache or Path(folder, "vectors.sqlite")
        report("BM25", arguments.collection, HashingEncoder(), asked, ("lexical",))
        for name, encoder in encoders():
            cached = CachedEncoder(encoder, store)
            texts = [document_text(chunk) for chunk in chunks_of(arguments.collection)]
            report(name, arguments.collection, cached, asked)
            centred = CentredEncoder.fit(cached, texts, [query.text for query in others[:: max(1, len(others) // 100)]])
            report(f"{name}, centred", arguments.collection, centred, asked)


def encoders() -> Iterator[tuple[str, Encoder]]:
    yield "MiniLM", SentenceTransformerEncoder()
    model = LocalModel.load()
    upper = {"layer": UPPER}
    prepended = {"layer": UPPER, "prepend_layers": LAYERS}
    yield f"mean, layer {UPPER}", model.encoder("mean", **upper)
    yield f"mean, layer {UPPER}, prepended", model.encoder("mean", **prepended)
    yield f"last, layer {UPPER}", model.encoder(**upper)
    yield f"last, layer {UPPER}, prepended", model.encoder(**prepended)
    yield "last, last layer", model.encoder()
    yield "mean, last layer", model.encoder("mean")
    yield f"weighted, layer {UPPER}", model.encoder("weighted", **upper)


def report(
    name: str, folder: Path, encoder: Encoder, queries: list[Query], modes: tuple[str, ...] = ("dense", "hybrid")
) -> None:
    with Index.in_memory(encoder=encoder) as index:
        before = time.process_time()
        index.add(chunks_of(folder))
        seconds = time.process_time() - before
        figures = []
        for mode in modes:
            found = [index.search(query.text, 10, mode=mode) for query in queries]  # type: ignore[arg-type]
            figures.append(f"{mode} {per_query(found, queries, MEASURES[0]).mean():.3f}")
    print(f"{name}: {'  '.join(figures)}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
