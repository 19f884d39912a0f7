"""fast-plaid on the CPU: its own indexing and search. Its wheels pin a CUDA build of torch."""

from __future__ import annotations

from pathlib import Path

import torch
from fast_plaid import search as fast_plaid
from harness import Given, Index, K, Method, Query, folder_bytes, main

SETTINGS = tuple(
    {"n_ivf_probe": probes, "n_full_scores": full}
    for probes, full in ((1, 256), (2, 256), (4, 512), (8, 1024), (8, 4096))
)


def build(given: Given, scratch: Path) -> Index:
    engine = fast_plaid.FastPlaid(index=str(scratch), device="cpu")
    documents = [torch.from_numpy(given.document(i)) for i in range(len(given.lengths))]
    engine.create(documents_embeddings=documents, nbits=4)

    def search(query: Query, **setting: int) -> list[int]:
        asked = torch.from_numpy(query.vectors)[None]
        found = engine.search(asked, top_k=K, show_progress=False, **setting)[0]
        return [document for document, _ in found]

    return Index(search, folder_bytes(scratch))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main({"4bit": Method(build, SETTINGS)})
