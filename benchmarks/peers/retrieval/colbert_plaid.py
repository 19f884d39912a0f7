"""Stanford's PLAID (colbert-ai): its own indexer and searcher, given the vectors in the place of an encoder.

Its C++ extensions are compiled at first use, before anything is measured: needs g++ and ninja.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from colbert.data.collection import Collection
from colbert.indexing.collection_indexer import CollectionIndexer
from colbert.indexing.index_saver import IndexSaver
from colbert.infra.config import ColBERTConfig
from colbert.modeling.colbert import ColBERT
from colbert.search.index_storage import IndexScorer
from harness import Given, Index, K, Method, Query, folder_bytes, main

BITS = 4
LONGEST_QUERY_TOKENS = 512
SETTINGS = tuple(
    {"ncells": ncells, "centroid_score_threshold": threshold, "ndocs": ndocs}
    for ncells, threshold, ndocs in (
        (1, 0.5, 256),
        (1, 0.5, 512),
        (1, 0.45, 512),
        (2, 0.5, 256),
        (2, 0.45, 512),
        (2, 0.45, 1024),
        (4, 0.4, 1024),
        (4, 0.4, 4096),
        (8, 0.3, 4096),
    )
)


class Encoder:
    """Knows the vectors; a passage is the number of a document."""

    def __init__(self, given: Given) -> None:
        self.given = given

    def encode_passages(self, passages: list[str]) -> tuple[torch.Tensor, list[int]]:
        found = [self.given.document(int(number)) for number in passages]
        return torch.from_numpy(np.concatenate(found)), [len(rows) for rows in found]


class Indexer(CollectionIndexer):
    """Without the checkpoint that the library's own loads."""

    def __init__(self, given: Given, config: ColBERTConfig) -> None:
        self.verbose, self.config = 0, config
        self.rank, self.nranks, self.use_gpu = 0, 1, False
        self.collection = Collection.cast([str(number) for number in range(len(given.lengths))])
        self.encoder, self.saver = Encoder(given), IndexSaver(config)


def build(given: Given, scratch: Path) -> Index:
    config = ColBERTConfig(
        nbits=BITS, dim=given.values.shape[1], index_path=str(scratch), query_maxlen=LONGEST_QUERY_TOKENS
    )
    Indexer(given, config).run([[]])
    scorer = IndexScorer(str(scratch), use_gpu=False)

    def search(query: Query, **setting: float) -> list[int]:
        config.configure(**setting)
        return scorer.rank(config, torch.from_numpy(query.vectors)[None])[0][:K]

    return Index(search, folder_bytes(scratch))


if __name__ == "__main__":
    ColBERT.try_load_torch_extensions(False)
    IndexScorer.try_load_torch_extensions(False)
    main({"plaid-4bit": Method(build, SETTINGS)})
