"""Centred vectors are another encoder's less the means of documents and of queries, in an index like any others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch
from ctxkit.protocols import TokenVectors, Vectors
from ctxkit.retrieval import CachedEncoder, CentredEncoder, HashingEncoder, Index

DOCUMENTS = ["red fox", "a fox at night", "blue whale", "red fox", "", "Zürich 🎉"]
QUERIES = ["which fox", "which whale", "where"]


class Cone(HashingEncoder):
    """All vectors are nearly one, which is another for queries."""

    def encode_documents(self, texts: list[str], *, progress: bool = False) -> Vectors:  # type: ignore[override]
        return self._moved(texts, 0)

    def encode_queries(self, texts: list[str]) -> Vectors:  # type: ignore[override]
        return self._moved(texts, 1)

    def _moved(self, texts: list[str], axis: int) -> Vectors:
        vectors = super().encode_documents(texts)
        values = vectors.values + 9 * np.eye(self.dims, dtype=np.float32)[axis]
        return Vectors(values / np.linalg.norm(values, axis=1, keepdims=True), vectors.offsets)


@pytest.mark.parametrize("multi_vector", [False, True])
def test_vectors_are_the_encoders_less_the_mean_of_their_kind(multi_vector: bool) -> None:
    inner = Cone(8, multi_vector=multi_vector)
    centred = CentredEncoder.fit(inner, DOCUMENTS, QUERIES)
    for whole, found in (
        (inner.encode_documents(DOCUMENTS), centred.encode_documents(DOCUMENTS)),
        (inner.encode_queries(QUERIES), centred.encode_queries(QUERIES)),
    ):
        rows = whole.values.astype(np.float64) - whole.values.astype(np.float64).mean(0)
        np.testing.assert_allclose(found.values, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-4)
        np.testing.assert_array_equal(found.offsets, whole.offsets)
        assert found.values.dtype == np.float32
    assert (centred.dims, centred.multi_vector) == (8, multi_vector)
    assert centred.count_batch(DOCUMENTS) == inner.count_batch(DOCUMENTS)


def test_what_lies_in_a_cone_can_be_told_apart_again() -> None:
    inner = Cone(64)
    centred = CentredEncoder.fit(inner, DOCUMENTS, QUERIES)
    raw = inner.encode_queries(["blue whale"]).values @ inner.encode_documents(DOCUMENTS).values.T
    found = centred.encode_queries(["blue whale"]).values @ centred.encode_documents(DOCUMENTS).values.T
    assert np.ptp(raw) < 0.05 and np.ptp(found) > 0.5
    assert found.argmax() == DOCUMENTS.index("blue whale")


def test_a_text_at_the_centre_is_no_direction_and_no_nan() -> None:
    centred = CentredEncoder.fit(HashingEncoder(8), ["same", "same"], QUERIES)
    assert not centred.encode_documents(["same"]).values.any()
    assert centred.encode_documents([]).values.shape == (0, 8)


def test_tokens_stay_with_their_rows() -> None:
    class Tokens(HashingEncoder):
        def encode_documents(self, texts: list[str], *, progress: bool = False) -> TokenVectors:  # type: ignore[override]
            vectors = super().encode_documents(texts)
            ids = np.arange(len(vectors.values), dtype=np.int32)
            return TokenVectors(vectors.values, vectors.offsets, ids, np.stack([ids, ids + 1], 1))

    found = CentredEncoder.fit(Tokens(8, multi_vector=True), DOCUMENTS, QUERIES).encode_documents(["red fox"])
    assert isinstance(found, TokenVectors) and found.spans.tolist() == [[0, 1], [1, 2]]


def test_an_index_opens_with_the_same_centres_only(tmp_path: Path) -> None:
    made = CentredEncoder.fit(HashingEncoder(8), DOCUMENTS, QUERIES)
    np.save(tmp_path / "centres.npy", made.centres)
    with Index.open(tmp_path / "index", encoder=made, create=True) as index:
        index.add([Chunk(str(number), "notes", text) for number, text in enumerate(DOCUMENTS[:3])])
    again = CentredEncoder(CachedEncoder(HashingEncoder(8), tmp_path / "v"), np.load(tmp_path / "centres.npy"))
    with Index.open(tmp_path / "index", encoder=again) as index:
        assert index.search("blue whale", k=1, mode="dense")[0].chunk.id == "2"
    for other in (CentredEncoder.fit(HashingEncoder(8), DOCUMENTS[:2], QUERIES), HashingEncoder(8)):
        with pytest.raises(IndexMismatch, match="was made by encoder 'hashing-8\\+centred'"):
            Index.open(tmp_path / "index", encoder=other)
    with Index.open(tmp_path / "index") as index, pytest.raises(IndexMismatch, match="Pass that encoder"):
        index.search("blue whale", mode="dense")


@pytest.mark.parametrize("shape", [(8,), (2, 7), (1, 8)])
def test_centres_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`centres` must be \[2, 8\] for 'hashing-8'"):
        CentredEncoder(HashingEncoder(8), np.zeros(shape, np.float32))


def test_the_mean_of_one_text_is_refused() -> None:
    with pytest.raises(ValueError, match="two texts of each kind, got 6 and 1"):
        CentredEncoder.fit(HashingEncoder(8), DOCUMENTS, ["fox"])
