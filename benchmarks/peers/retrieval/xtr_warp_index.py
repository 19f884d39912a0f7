"""xtr-warp-rs (WARP) on the CPU: its own indexing and search. Its wheels pin a CUDA build of torch.

The first setting leaves everything to the library, which then chooses by the size of the index.
"""

from __future__ import annotations

from pathlib import Path

import torch
from harness import Given, Index, K, Method, Query, folder_bytes, main
from xtr_warp import search as xtr_warp

SETTINGS = (
    {},
    {"nprobe": 16, "t_prime": 20_000, "bound": 128, "centroid_score_threshold": 0.0},
    {"nprobe": 32, "t_prime": 20_000, "bound": 256, "centroid_score_threshold": 0.0},
    {"nprobe": 32, "t_prime": 5_000, "bound": 256, "centroid_score_threshold": 0.0},
    {"nprobe": 64, "t_prime": 20_000, "bound": 512, "centroid_score_threshold": 0.0, "max_candidates": 200_000},
    {"nprobe": 64, "t_prime": 50_000, "bound": 512, "centroid_score_threshold": 0.0, "max_candidates": 200_000},
)


def build(given: Given, scratch: Path) -> Index:
    engine = xtr_warp.XTRWarp(index=str(scratch))
    documents = [torch.from_numpy(given.document(i)) for i in range(len(given.lengths))]
    engine.create(documents, device="cpu", nbits=4, show_progress=False)
    engine.load(device="cpu")

    def search(query: Query, **setting: float) -> list[int]:
        found = engine.search(torch.from_numpy(query.vectors)[None], top_k=K, show_progress=False, **setting)[0]
        return [document for document, _ in found]

    return Index(search, folder_bytes(scratch))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main({"4bit": Method(build, SETTINGS)})
