"""A cached encoder gives what the encoder gives, encodes nothing twice, and survives whatever happens to its file."""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval.encoders import CachedEncoder, TokenVectors, VectorStore
from ctxkit.retrieval.encoders.token_vectors import Rows

TEXTS = ["red fox", "", "blue fox at night", "red fox", "…", "Zürich 東京 🎉"]


class Counting(HashingEncoder):
    """Remembers what it was asked for, and can say which token each row is."""

    def __init__(self, dims: int = 8, *, multi_vector: bool = False, tokens: bool = False) -> None:
        super().__init__(dims, multi_vector=multi_vector)
        self.seen: list[str] = []
        self.tokens = tokens

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self.seen += texts
        vectors = super().encode_documents(texts)
        ids = np.arange(len(vectors.values), dtype=np.int32)
        return (
            TokenVectors(vectors.values, vectors.offsets, ids, np.stack([ids, ids + 1], 1)) if self.tokens else vectors
        )


def same(one: Vectors, other: Vectors) -> bool:
    return np.array_equal(one.values, other.values) and np.array_equal(one.offsets, other.offsets)


@pytest.mark.parametrize("multi_vector", [False, True])
def test_vectors_are_the_encoders_bit_for_bit_and_made_once(tmp_path, multi_vector):
    encoder = Counting(multi_vector=multi_vector)
    truth = HashingEncoder(8, multi_vector=multi_vector).encode_documents(TEXTS)
    for _ in range(2):  # the second time from another object, as in another run
        cached = CachedEncoder(encoder, tmp_path / "deep" / "vectors.sqlite")
        assert same(cached.encode_documents(TEXTS), truth)
        assert (cached.name, cached.fingerprint, cached.dims) == (encoder.name, encoder.fingerprint, 8)
        assert (cached.multi_vector, cached.count_batch(TEXTS)) == (multi_vector, encoder.count_batch(TEXTS))
    assert sorted(encoder.seen) == sorted(set(TEXTS))
    assert same(cached.encode_documents([]), encoder.encode_documents([]))


def test_tokens_and_places_are_kept_too(tmp_path):
    encoder = Counting(multi_vector=True, tokens=True)
    first = CachedEncoder(encoder, tmp_path / "v").encode_documents(TEXTS[:3])
    again = CachedEncoder(encoder, tmp_path / "v").encode_documents(TEXTS[:3][::-1])
    assert isinstance(again, TokenVectors)
    assert again.token_ids.tolist() == [3, 4, 5, 6, 2, 0, 1]
    assert np.array_equal(np.sort(again.spans, axis=0), first.spans)
    assert again.spans.dtype == again.token_ids.dtype == np.int32


def test_queries_documents_and_encoders_do_not_share_vectors(tmp_path):
    store = VectorStore(tmp_path / "v")
    one, other = (CachedEncoder(HashingEncoder(dims), store) for dims in (4, 8))
    for cached in (one, other):
        cached.encode_documents(["red fox"])
        cached.encode_queries(["red fox"])
    assert len(store) == 4
    assert other.encode_queries(["red fox"]).values.shape == (1, 8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.lists(st.text(max_size=6), max_size=5), max_size=5), multi_vector=st.booleans())
def test_in_whatever_order_it_is_asked(tmp_path_factory, calls, multi_vector):
    encoder = Counting(multi_vector=multi_vector)
    cached = CachedEncoder(encoder, tmp_path_factory.mktemp("x") / "v")
    for texts in calls:
        assert same(
            cached.encode_documents(texts), HashingEncoder(8, multi_vector=multi_vector).encode_documents(texts)
        )
    assert sorted(encoder.seen) == sorted({text for texts in calls for text in texts})


def damage_rows(path: Path, change: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(change)
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vectors SET rows = zeroblob(length(rows))",
        "UPDATE vectors SET rows = substr(rows, 1, 130)",
        "UPDATE vectors SET rows = ''",
        "UPDATE vectors SET digest = zeroblob(16)",
        "UPDATE vectors SET (digest, rows) = (SELECT digest, rows FROM vectors LIMIT 1)",  # another text's
    ],
)
def test_a_damaged_entry_is_noticed_and_made_again(tmp_path, change):
    cached = CachedEncoder(Counting(), tmp_path / "v")
    truth = cached.encode_documents(TEXTS)
    damage_rows(tmp_path / "v", change)
    with pytest.warns(RuntimeWarning, match="are damaged and are made again"):
        assert same(cached.encode_documents(TEXTS), truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(cached.encode_documents(TEXTS), truth)


def test_any_flipped_byte_costs_time_and_never_a_wrong_vector(tmp_path):
    truth = CachedEncoder(Counting(), tmp_path / "v").encode_documents(TEXTS)
    whole = (tmp_path / "v").read_bytes()
    for place in range(0, len(whole), max(len(whole) // 400, 1)):
        (tmp_path / "v").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert same(CachedEncoder(Counting(), tmp_path / "v").encode_documents(TEXTS), truth)
        for extra in ("v-wal", "v-shm"):
            (tmp_path / extra).unlink(missing_ok=True)


@pytest.mark.parametrize("content", [b"no database at all, but longer than a header" * 9, None])
def test_a_file_that_is_no_store_is_a_warning(tmp_path, content):
    if content is None:
        (tmp_path / "v").mkdir()
    else:
        (tmp_path / "v").write_bytes(content)
    encoder = Counting()
    with pytest.warns(RuntimeWarning, match=r"v: cannot be used .*Delete it if it is damaged"):
        vectors = CachedEncoder(encoder, tmp_path / "v").encode_documents(TEXTS)
    assert same(vectors, HashingEncoder(8).encode_documents(TEXTS))


def test_a_run_that_is_killed_keeps_what_it_had_made(tmp_path, monkeypatch):
    monkeypatch.setattr("ctxkit.retrieval.encoders.cached._WRITTEN_AT_ONCE", 2)

    class Dying(Counting):
        def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
            if "c" in texts:
                raise KeyboardInterrupt
            return super().encode_documents(texts)

    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(Dying(), tmp_path / "v").encode_documents(list("abcd"))
    encoder = Counting()
    CachedEncoder(encoder, tmp_path / "v").encode_documents(list("abcd"))
    assert encoder.seen == ["c", "d"]


def test_threads_share_one_store(tmp_path):
    store = VectorStore(tmp_path / "v")
    row = Rows(np.ones((1, 2), np.float32))
    threads = [
        threading.Thread(target=lambda n=n: [store.write({bytes([n, i]): row}) for i in range(10)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 40
    assert len(store.read([bytes([n, i]) for n in range(4) for i in range(12)])) == 40


def test_an_index_does_not_care_whether_its_encoder_is_cached(tmp_path):
    chunks = [Chunk(str(i), "a.md", text) for i, text in enumerate(TEXTS)]
    encoder = Counting(multi_vector=True)
    with Index.open(tmp_path / "i", encoder=CachedEncoder(encoder, tmp_path / "v"), create=True) as index:
        index.add(chunks)
        hits = index.search("fox at night", mode="dense")
    with Index.open(tmp_path / "i", encoder=encoder) as index:
        assert index.search("fox at night", mode="dense") == hits
    encoder.seen.clear()
    with Index.open(tmp_path / "again", encoder=CachedEncoder(encoder, tmp_path / "v"), create=True) as index:
        index.add(chunks)
    assert encoder.seen == []
