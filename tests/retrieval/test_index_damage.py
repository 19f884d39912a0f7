"""What is wrong with an index is said with a typed error that names the place and the remedy."""

from __future__ import annotations

import json
import sqlite3
import threading

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, IndexNotFound, StoreError
from ctxkit.retrieval import HashingEncoder, Index


@pytest.fixture
def folder(tmp_path):
    with Index.open(tmp_path / "ix", encoder=HashingEncoder(16), create=True) as index:
        index.add([Chunk(f"c{n}", "a.md", f"word {n}") for n in range(9)])
    return tmp_path / "ix"


def meta(folder, key, value):
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.close()


def segment_of(folder):
    (path,) = (folder / "vectors").iterdir()
    return path


def test_no_index_names_the_path_and_the_command(tmp_path):
    with pytest.raises(IndexNotFound, match=r"there is no index at .*nowhere.*ctxkit index FOLDER --to .*nowhere"):
        Index.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_index_whose_making_was_cut_short_is_no_index_and_can_be_made(tmp_path):
    (tmp_path / "index.sqlite").touch()
    with pytest.raises(IndexNotFound):
        Index.open(tmp_path)
    Index.open(tmp_path, encoder=HashingEncoder(16), create=True).close()


def test_create_opens_what_is_there(folder):
    with Index.open(folder, create=True) as index:
        assert len(index) == 9


@pytest.mark.parametrize("other", [HashingEncoder(8), HashingEncoder(16, multi_vector=True)])
def test_another_encoder_is_refused(folder, other):
    with pytest.raises(IndexMismatch, match="was made by encoder 'hashing-16'.*index the folder again"):
        Index.open(folder, encoder=other)


def test_an_encoder_that_has_changed_since_is_refused_when_it_is_needed(folder):
    identity = {"class_name": "HashingEncoder", "name": "hashing-16", "fingerprint": "older", "multi_vector": False}
    meta(folder, "encoder", json.dumps(identity))
    with Index.open(folder) as index:
        assert len(index.search("word", mode="lexical")) == 9
        with pytest.raises(IndexMismatch, match="older"):
            index.search("word")


def test_an_encoder_of_the_callers_own_must_be_given(folder):
    identity = {"class_name": "Mine", "name": "m", "fingerprint": "f", "multi_vector": False}
    meta(folder, "encoder", json.dumps(identity))
    with Index.open(folder) as index, pytest.raises(IndexMismatch, match=r"Index.open\(path, encoder="):
        index.search("word")


def test_another_format_is_refused(folder):
    meta(folder, "format_version", "99")
    with pytest.raises(IndexMismatch, match="format version '99'; this ctxkit reads 1"):
        Index.open(folder)


def test_a_file_that_is_no_database_is_refused(folder):
    (folder / "index.sqlite").write_bytes(b"not a database" * 1000)
    for suffix in ("-wal", "-shm"):
        (folder / f"index.sqlite{suffix}").unlink(missing_ok=True)
    with pytest.raises(StoreError, match=r"index\.sqlite: cannot be read"):
        Index.open(folder)


def test_metadata_that_makes_no_sense_is_refused(folder):
    meta(folder, "encoder", "{")
    with pytest.raises(StoreError, match="does not say which encoder"):
        Index.open(folder)


def damage(kind, path):
    if kind == "missing":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        np.save(path, np.zeros((2, 16), np.float32))


@pytest.mark.parametrize("kind", ["missing", "cut", "empty", "pickle", "short"])
def test_a_damaged_vector_file_is_named(folder, kind):
    path = segment_of(folder)
    damage(kind, path)
    with Index.open(folder) as index:
        assert len(index) == 9
        with pytest.raises(StoreError, match=path.name):
            index.search("word")


def test_a_closed_index_says_so(folder):
    index = Index.open(folder)
    index.close()
    index.close()
    for call in (index.sources, lambda: index.search("word", mode="lexical"), lambda: index.add([]), index.stats):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_an_index_in_memory_leaves_nothing(chunk):
    with Index.in_memory(encoder=HashingEncoder(8)) as index:
        path = index.path
        index.add([chunk("a")])
        assert path.exists()
    assert not path.exists()


def test_many_threads_search_one_index_while_it_is_written(folder):
    failures: list[BaseException] = []
    with Index.open(folder) as index:

        def search():
            try:
                for _ in range(20):
                    assert len(index.search("word", 100)) >= 9
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(20):
            index.add([Chunk(f"t{n}", "b.md", f"word t{n}")])
        for thread in threads:
            thread.join()
        assert not failures
        assert len(index.search("word", 100)) == 29
