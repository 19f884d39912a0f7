"""usearch over tokens (HNSW, int8), XTR imputation, exact float32 rerank from the vectors themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness import Given, Index, Method, Query, main
from imputation import ranked
from usearch import index as usearch

SETTINGS = tuple({"ef": depth, "depth": depth, "rerank": 100} for depth in (100, 200, 500, 800))


def build(given: Given, scratch: Path) -> Index:
    index = usearch.Index(ndim=given.values.shape[1], metric="ip", dtype="i8")
    index.add(np.arange(len(given.values)), given.values, threads=1)
    index.save(str(scratch / "index"))

    def search(query: Query, ef: int, depth: int, rerank: int) -> np.ndarray:
        index.expansion_search = ef
        found = index.search(query.vectors, depth, threads=1)
        rows = np.where(np.arange(depth) < np.asarray(found.counts)[:, None], found.keys.astype(np.int64), -1)
        return ranked(given, query.vectors, 1 - found.distances, rows, rerank)

    return Index(search, (scratch / "index").stat().st_size, given.values.nbytes)


if __name__ == "__main__":
    main({"hnsw-i8": Method(build, SETTINGS)})
