"""An index answers through the engine it was made with; what takes long to make is kept beside it."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch
from ctxkit.retrieval import HashingEncoder, HnswOptions, Index, IvfOptions
from ctxkit.retrieval.engines import faiss_ann

WORDS = [f"word{i}" for i in range(60)]
OPTIONS = {
    "ivf": IvfOptions(lists=8, probes=8, flat_below_rows=100),
    "hnsw": HnswOptions(flat_below_rows=100),
}
ENCODER = HashingEncoder(24)


def chunks(first: int, last: int) -> list[Chunk]:
    return [
        Chunk(f"c{i}", f"{i % 5}.md", " ".join(random.Random(i).choices(WORDS, k=8)), metadata={"n": i})
        for i in range(first, last)
    ]


def opened(place: Path, name: str) -> Index:
    return Index.open(place, encoder=ENCODER, engine=name, ann=OPTIONS.get(name), create=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["flat", "ivf", "hnsw"])
def test_an_engine_finds_what_brute_force_finds_through_adds_deletes_filters_and_openings(tmp_path, name):
    exact = Index.in_memory(encoder=ENCODER, engine="exact")
    exact.add(chunks(0, 500))
    with opened(tmp_path, name) as index:
        index.add(chunks(0, 500))
        compare(index, exact)
        index.add(chunks(500, 520))
        exact.add(chunks(500, 520))
        compare(index, exact)
    for one in (opened(tmp_path, name), exact):
        one.delete(ids=[f"c{i}" for i in range(0, 520, 3)])
    with opened(tmp_path, name) as index:
        compare(index, exact)
        index.compact()
        index.add(chunks(600, 640))
        exact.add(chunks(600, 640))
        compare(index, exact)
        assert (index.stats().engine, index.stats().dead_rows) == (name, 0)


def compare(index: Index, exact: Index) -> None:
    for query in ("word1 word2 word3", "word40", "word7 word8 word9 word10 word59"):
        for options in ({}, {"where": {"n": {">": 200}}}, {"sources": ["1.md", "2.md"]}):
            truth = [hit.chunk.id for hit in exact.search(query, 20, mode="dense", **options)]
            hits = index.search(query, 20, mode="dense", **options)
            assert len(hits) == len(truth)
            assert len({hit.chunk.id for hit in hits} & set(truth)) >= 0.8 * len(truth)


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
def test_an_engine_is_kept_and_the_next_process_need_not_make_it(tmp_path, name, monkeypatch):
    with opened(tmp_path, name) as index:
        index.add(chunks(0, 300))
        before = index.search("word1 word2", 30, mode="dense")
    assert (tmp_path / "ann" / f"{name}.safetensors").is_file()
    kind = {"ivf": faiss_ann.IvfEngine, "hnsw": faiss_ann.HnswEngine}[name]
    monkeypatch.setattr(kind, "add", lambda *_: pytest.fail("made anew"))
    with opened(tmp_path, name) as index:
        assert index.search("word1 word2", 30, mode="dense") == before


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
def test_a_kept_engine_that_is_damaged_or_of_other_documents_is_made_anew_and_named(tmp_path, name, caplog):
    with opened(tmp_path, name) as index:
        index.add(chunks(0, 300))
        before = index.search("word1 word2", 30, mode="dense")
    path = tmp_path / "ann" / f"{name}.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-5] + b"xxxxx")
    with caplog.at_level(logging.WARNING), opened(tmp_path, name) as index:
        assert index.search("word1 word2", 30, mode="dense") == before
    assert path.name in caplog.text and "damaged" in caplog.text
    with opened(tmp_path, name) as index:
        index.delete(ids=[f"c{i}" for i in range(200)])
        index.add(chunks(1000, 1200))
        path.write_bytes(good)
    with opened(tmp_path, name) as index:
        found = {hit.chunk.id for hit in index.search("word1 word2", 400, mode="dense")}
    assert found == {chunk.id for chunk in [*chunks(200, 300), *chunks(1000, 1200)]}


def test_an_engine_that_cannot_search_such_vectors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`engine` must be one of auto, exact, multivector for several vectors"):
        Index.open(tmp_path / "m", encoder=HashingEncoder(8, multi_vector=True), engine="ivf", create=True)
    with pytest.raises(ValueError, match="`engine` must be one of"):
        Index.open(tmp_path / "s", encoder=HashingEncoder(8), engine="annoy", create=True)  # type: ignore[arg-type]
    assert not (tmp_path / "m").exists() and not (tmp_path / "s").exists()


def test_another_engine_than_the_index_was_made_with_is_refused(tmp_path):
    opened(tmp_path, "hnsw").close()
    with pytest.raises(IndexMismatch, match="was made for engine 'hnsw', not 'ivf'"):
        Index.open(tmp_path, engine="ivf")
    Index.open(tmp_path).close()
