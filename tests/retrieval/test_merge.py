"""Merged shards are one index: the answers of one, nothing encoded again, and what cannot be merged is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, IndexNotFound, StoreError
from ctxkit.protocols import TokenVectors, Vectors
from ctxkit.retrieval import BuildOptions, HashingEncoder, Index, Merged, merge
from ctxkit.retrieval.storage.store import Store
from ctxkit.retrieval.storage.vectors import uncoded

WORDS = "alpha beta gamma delta epsilon zeta eta theta".split()


class NoEncoder(HashingEncoder):
    """Encodes queries alone."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        raise AssertionError(f"encoded {texts!r}")


class TokenEncoder(HashingEncoder):
    """Knows the token of each row, by its place in its text."""

    def __init__(self) -> None:
        super().__init__(16, multi_vector=True)

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        return self._known(super().encode_documents(texts, progress=progress))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._known(super().encode_queries(texts))

    def _known(self, vectors: Vectors) -> TokenVectors:
        rows = np.concatenate([np.arange(count) for count in np.diff(vectors.offsets)])
        spans = np.stack([4 * rows, 4 * rows + 3], axis=1).astype(np.int32)
        return TokenVectors(vectors.values, vectors.offsets, (rows + 5).astype(np.int32), spans)


def chunks_of(source: str, count: int = 6) -> list[Chunk]:
    return [
        Chunk(f"{source}/{i}", source, f"{source} {WORDS[i % 8]} {WORDS[i % 5]}", (WORDS[i % 3],)) for i in range(count)
    ]


def shard(place: Path, sources: Sequence[str], encoder: HashingEncoder, **options: object) -> Path:
    with Index.open(place, encoder=encoder, create=True, **{"engine": "exact", **options}) as index:
        index.replace_sources((source, f"hash of {source}", chunks_of(source)) for source in sources)
    return place


def whole(place: Path):
    return lambda encoder: Index.open(place, encoder=encoder, create=True, engine="exact")


@pytest.mark.parametrize("encoder", [HashingEncoder(16), TokenEncoder()], ids=["single", "tokens"])
def test_a_merged_index_answers_as_one_that_was_made_at_once(tmp_path, encoder):
    shards = [shard(tmp_path / name, list(name), encoder) for name in ("abc", "d", "ef")]
    made = NoEncoder(16, multi_vector=encoder.multi_vector)
    assert merge(shards, whole(tmp_path / "whole"), encoder=made) == Merged(written=6, chunks=36)
    once = shard(tmp_path / "once", list("abcdef"), encoder)
    with Index.open(tmp_path / "whole", encoder=encoder) as merged, Index.open(once, encoder=encoder) as own:
        merged.verify()
        assert merged.sources() == own.sources()
        for mode in ("hybrid", "dense", "lexical"):
            hits = merged.search("beta eta c", 36, mode=mode)
            assert hits == own.search("beta eta c", 36, mode=mode)
        if encoder.multi_vector:
            assert any(hit.matches for hit in merged.search("beta c gamma a eta", 36)), (
                "where the tokens stand came along"
            )


def test_token_ids_come_along(tmp_path):
    """They are what clusters are made by, when the merged index codes its vectors."""
    shards = [shard(tmp_path / name, list(name), TokenEncoder()) for name in ("ab", "c")]
    merge(shards, whole(tmp_path / "whole"), encoder=TokenEncoder())
    store = Store.open(tmp_path / "whole")
    with store.reading() as connection:
        blocks = list(uncoded(connection, store.files))
    store.close()
    for block in blocks:
        rows = np.concatenate([np.arange(count) for count in np.diff(block.vectors.offsets)])
        assert block.token_ids.tolist() == (rows + 5).tolist()
    assert sum(len(block.numbers) for block in blocks) == 18


def test_merging_again_writes_what_changed_and_removes_what_it_is_told(tmp_path):
    encoder = HashingEncoder(16)
    first, second = (shard(tmp_path / name, list(name), encoder) for name in ("ab", "cd"))
    merge([first, second], whole(tmp_path / "whole"), encoder=encoder)
    with Index.open(first, encoder=encoder) as index:
        index.replace_source("a", "new", chunks_of("a", 2))
        index.delete(sources=["b"])
    target = whole(tmp_path / "whole")
    assert merge([first, second], target, encoder=encoder) == Merged(written=1, unchanged=2, chunks=2)
    assert merge([first, second], target, encoder=encoder, remove_others=True) == Merged(unchanged=3, removed=1)
    with Index.open(tmp_path / "whole", encoder=encoder) as index:
        assert index.sources() == {"a": "new", "c": "hash of c", "d": "hash of d"} and len(index) == 14


def test_shards_name_their_encoder_and_may_be_empty(tmp_path):
    shards = [shard(tmp_path / "none", [], HashingEncoder(16)), shard(tmp_path / "a", ["a"], HashingEncoder(16))]
    with Index.open(shards[0], encoder=HashingEncoder(16)) as index:
        assert len(index) == 0
    assert merge(shards, whole(tmp_path / "whole")).chunks == 6
    assert merge(shards[:1], whole(tmp_path / "empty")) == Merged()


def test_what_cannot_be_merged_is_refused_before_anything_is_written(tmp_path):
    encoder = HashingEncoder(16)
    good = shard(tmp_path / "a", ["a"], encoder)
    target = whole(tmp_path / "whole")
    with pytest.raises(StoreError, match=r"source 'a' is in .*/a and in .*/again"):
        merge([good, shard(tmp_path / "again", ["a"], encoder)], target, encoder=encoder)
    with pytest.raises(IndexMismatch, match="was made by encoder 'hashing-32'"):
        merge([good, shard(tmp_path / "other", ["b"], HashingEncoder(32))], target, encoder=encoder)
    with pytest.raises(IndexNotFound, match="nowhere"):
        merge([good, tmp_path / "nowhere"], target, encoder=encoder)
    with pytest.raises(ValueError, match="`shards` must name at least one index"):
        merge([], target)
    tokens = TokenEncoder()
    coded = BuildOptions(exact_below_tokens=1, fresh_rows=1)
    with pytest.raises(StoreError, match="keeps coded vectors"):
        merge([shard(tmp_path / "c", ["c"], tokens, engine="multivector", build=coded)], target, encoder=tokens)
    assert not (tmp_path / "whole").exists()
