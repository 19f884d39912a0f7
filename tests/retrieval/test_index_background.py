"""Coding in the background: writes return before it, searches go on through it, later writes wait for it."""

from __future__ import annotations

import logging
import random
import threading
from pathlib import Path

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexLocked, StoreError
from ctxkit.retrieval import BuildOptions, HashingEncoder, Index
from ctxkit.retrieval.storage import recoding
from ctxkit.retrieval.storage.store import Store

BUILD = BuildOptions(exact_below_tokens=60, tail_tokens=30, fresh_rows=12)
WORDS = [f"word{i}" for i in range(40)]


def chunks(first: int, last: int) -> list[Chunk]:
    return [
        Chunk(f"c{i}", "a.md", " ".join(random.Random(i).choices(WORDS, k=6)), metadata={"n": i})
        for i in range(first, last)
    ]


def opened(place: Path, **options: bool) -> Index:
    encoder = HashingEncoder(16, multi_vector=True)
    return Index.open(place, encoder=encoder, create=True, build=BUILD, **options)  # type: ignore[arg-type]


@pytest.fixture
def held(monkeypatch):
    """Coding that has begun, and goes on when it is let."""
    begun, go_on = threading.Event(), threading.Event()
    recoded = recoding.recoded

    def waiting(*arguments, **options):
        begun.set()
        assert go_on.wait(30)
        return recoded(*arguments, **options)

    monkeypatch.setattr(recoding, "recoded", waiting)
    yield begun, go_on
    go_on.set()


def test_a_write_returns_before_the_coding_and_searches_go_on_meanwhile(tmp_path, held):
    begun, go_on = held
    with opened(tmp_path, background=True) as index:
        index.add(chunks(0, 50))
        assert begun.wait(30)
        assert index.stats().coded_rows == 0
        assert len(index.search("word1 word2", 50, mode="dense")) == 50
        go_on.set()
    with opened(tmp_path) as index:
        assert index.stats().coded_rows == index.stats().vector_rows == 300
        assert len(index.search("word1 word2", 50, mode="dense")) == 50
        index.verify()


def test_a_later_write_waits_for_the_coding_and_another_index_is_refused(tmp_path, held):
    begun, go_on = held
    with opened(tmp_path, background=True) as index, opened(tmp_path) as other:
        index.add(chunks(0, 50))
        assert begun.wait(30)
        with pytest.raises(IndexLocked):
            other.add(chunks(100, 101))
        later = threading.Thread(target=lambda: index.add(chunks(50, 53)))
        later.start()
        later.join(0.2)
        assert later.is_alive()
        go_on.set()
        later.join(30)
        assert len(index) == 53
        assert {hit.chunk.id for hit in index.search("word1", 60, mode="dense")} == {f"c{i}" for i in range(53)}
    with opened(tmp_path) as index:
        index.verify()


def test_many_small_writes_end_up_coded(tmp_path):
    with opened(tmp_path, background=True) as index:
        for i in range(60):
            index.add(chunks(i, i + 1))
            if i % 7 == 3:
                index.delete(ids=[f"c{i - 2}"])
            found = {hit.chunk.id for hit in index.search("word1", 100, mode="dense")}
            assert len(found) == len(index)
    with opened(tmp_path) as index:
        stats = index.stats()
        assert stats.coded_rows > stats.vector_rows / 2
        index.verify()


def test_what_fails_in_the_background_is_logged_and_due_again(tmp_path, monkeypatch, caplog):
    recoded = recoding.recoded

    def failing(*_, **__):
        raise StoreError("no room")

    monkeypatch.setattr(recoding, "recoded", failing)
    with caplog.at_level(logging.WARNING), opened(tmp_path, background=True) as index:
        index.add(chunks(0, 50))
    assert "no room" in caplog.text
    with opened(tmp_path) as index:
        index.verify()
        assert (len(index), index.stats().coded_rows) == (50, 0)
        monkeypatch.setattr(recoding, "recoded", recoded)
        index.add(chunks(50, 51))
        assert index.stats().coded_rows == index.stats().vector_rows


def test_a_writer_in_the_same_thread_is_refused_not_waited_for(tmp_path):
    with opened(tmp_path, background=True) as index:
        store = index._store
        assert isinstance(store, Store)
        with store.writing(), pytest.raises(IndexLocked):
            index.add(chunks(0, 1))
