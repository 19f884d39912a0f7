"""bm25s over the same passages, words being the encoder's word pieces. Recall says how far it finds the same."""

from __future__ import annotations

from pathlib import Path

import bm25s
import numpy as np
from bm25s.tokenization import Tokenized
from harness import Given, Index, K, Method, Query, folder_bytes, main


def build(given: Given, scratch: Path) -> Index:
    _, ids = np.unique(given.token_ids, return_inverse=True)
    words = {str(word): i for i, word in enumerate(np.unique(given.token_ids))}
    documents = [ids[a:b].tolist() for a, b in zip(given.offsets[:-1], given.offsets[1:], strict=True)]
    engine = bm25s.BM25()
    engine.index(Tokenized(documents, words), show_progress=False)
    engine.save(str(scratch / "index"))

    def search(query: Query) -> np.ndarray:
        asked = [[str(word) for word in query.ids]]
        return engine.retrieve(asked, k=K, show_progress=False, n_threads=0).documents[0]

    return Index(search, folder_bytes(scratch / "index"))


if __name__ == "__main__":
    main({"bm25": Method(build, [{}])})
