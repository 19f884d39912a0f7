"""LanceDB: a column of many vectors per row, IVF_PQ. The table holds the float32 vectors, which `refine` reads."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from harness import Given, Index, K, Method, Query, folder_bytes, main

SETTINGS = (
    {"nprobes": 20, "refine": None},
    {"nprobes": 20, "refine": 5},
    {"nprobes": 64, "refine": 10},
    {"nprobes": 64, "refine": 30},
)


def build(given: Given, scratch: Path) -> Index:
    tokens = pa.FixedSizeListArray.from_arrays(pa.array(given.values.ravel()), given.values.shape[1])
    vectors = pa.ListArray.from_arrays(pa.array(given.offsets.astype(np.int32)), tokens)
    rows = pa.table({"id": pa.array(np.arange(len(given.lengths))), "vector": vectors})
    table = lancedb.connect(str(scratch)).create_table("tokens", rows)
    table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")

    def search(query: Query, nprobes: int, refine: int | None) -> np.ndarray:
        asked = table.search(query.vectors, vector_column_name="vector").limit(K).nprobes(nprobes).select(["id"])
        if refine:
            asked = asked.refine_factor(refine)
        return asked.to_arrow()["id"].to_numpy()

    return Index(search, folder_bytes(scratch))


if __name__ == "__main__":
    main({"ivf-pq": Method(build, SETTINGS)})
