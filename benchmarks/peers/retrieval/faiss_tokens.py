"""faiss over tokens, XTR imputation, exact float32 rerank from the vectors themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import faiss
import numpy as np
from harness import Given, Index, Method, Query, main
from imputation import ranked

TRAINING_TOKENS_PER_LIST = 64
LISTS = tuple(
    {"nprobe": nprobe, "depth": depth, "rerank": rerank}
    for nprobe, depth, rerank in (
        (2, 100, 50),
        (4, 100, 50),
        (4, 200, 50),
        (4, 200, 100),
        (8, 200, 100),
        (8, 500, 100),
        (16, 500, 100),
        (16, 1000, 100),
        (32, 1000, 200),
    )
)
GRAPH = tuple({"ef": depth, "depth": depth, "rerank": 100} for depth in (100, 200, 500, 800))


def lists(codec: str, given: Given, scratch: Path) -> Index:
    count = 1 << max(4, round(np.log2(4 * len(given.values) ** 0.5)))
    index = faiss.index_factory(given.values.shape[1], f"IVF{count},{codec}", faiss.METRIC_INNER_PRODUCT)
    most = min(len(given.values), TRAINING_TOKENS_PER_LIST * count)
    index.train(given.values[np.sort(np.random.default_rng(0).choice(len(given.values), most, replace=False))])
    index.add(given.values)

    def search(query: Query, nprobe: int, depth: int, rerank: int) -> np.ndarray:
        index.nprobe = nprobe
        return ranked(given, query.vectors, *index.search(query.vectors, depth), rerank)

    return Index(search, written(index, scratch), given.values.nbytes)


def graph(given: Given, scratch: Path) -> Index:
    index = faiss.index_factory(given.values.shape[1], "HNSW16,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(given.values[:100_000])
    index.add(given.values)

    def search(query: Query, ef: int, depth: int, rerank: int) -> np.ndarray:
        index.hnsw.efSearch = ef
        return ranked(given, query.vectors, *index.search(query.vectors, depth), rerank)

    return Index(search, written(index, scratch), given.values.nbytes)


def written(index: faiss.Index, scratch: Path) -> int:
    faiss.write_index(index, str(scratch / "index"))
    return (scratch / "index").stat().st_size


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    main(
        {
            "ivf-pq": Method(partial(lists, "PQ64x4fs"), LISTS),
            "ivf-sq8": Method(partial(lists, "SQ8"), LISTS),
            "hnsw-sq8": Method(graph, GRAPH),
        }
    )
