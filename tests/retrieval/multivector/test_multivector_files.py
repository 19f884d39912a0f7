"""Saved engines come back the same, mapped; any damaged byte is detected, and the file that holds it is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctxkit.errors import IndexMismatch, StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine
from ctxkit.retrieval.storage import array_file

DIMS = 24
QUERY = np.random.default_rng(9).standard_normal((5, DIMS)).astype(np.float32)


def engine_of(kind: str) -> MultiVectorEngine:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((500, DIMS)).astype(np.float32)
    options = {
        "exact": BuildOptions(exact_below_tokens=10**6),
        "coded": BuildOptions(0, centroids=30),
        "refined": BuildOptions(0, centroids=30, refine=True),
    }[kind]
    return MultiVectorEngine.build(Vectors(values, np.arange(0, 501, 5)), rng.integers(0, 40, 500), options)


each_kind = pytest.mark.parametrize("kind", ["exact", "coded", "refined"])


@each_kind
@pytest.mark.parametrize("verify", [True, False])
def test_a_saved_engine_answers_the_same_and_is_mapped(kind: str, verify: bool, tmp_path: Path) -> None:
    engine = engine_of(kind)
    engine.save(tmp_path / "engine")
    loaded = MultiVectorEngine.load(tmp_path / "engine", verify=verify)
    for one, two in zip(engine.search(QUERY, 20), loaded.search(QUERY, 20), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (len(loaded), loaded.dims, loaded.exact, loaded.nbytes) == (100, DIMS, engine.exact, engine.nbytes)
    assert not any(array.flags.owndata or array.flags.writeable for array in loaded._part.to_arrays()[1].values())


@each_kind
def test_any_damaged_byte_is_detected_and_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "engine"
    engine_of(kind).save(path)
    rng = np.random.default_rng(1)
    good = path.read_bytes()
    for place in {0, 7, *range(8, 2000, 17), len(good) // 2, len(good) - 1, *rng.integers(0, len(good), 100).tolist()}:
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(StoreError, match=path.name):
            MultiVectorEngine.load(path)
    for bad in (good[:-1], good + b"x", good[:9], b""):
        path.write_bytes(bad)
        with pytest.raises(StoreError, match=path.name):
            MultiVectorEngine.load(path)
    path.write_bytes(good)
    MultiVectorEngine.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere: the file is missing"):
        MultiVectorEngine.load(tmp_path / "nowhere")


def test_another_format_is_refused(tmp_path: Path) -> None:
    array_file.write(tmp_path / "engine", {}, {"kind": "exact", "format": 99})
    with pytest.raises(IndexMismatch, match="format 99"):
        MultiVectorEngine.load(tmp_path / "engine")


def test_a_save_over_an_engine_leaves_the_new_one(tmp_path: Path) -> None:
    engine_of("refined").save(tmp_path / "engine")
    engine_of("exact").save(tmp_path / "engine")
    assert MultiVectorEngine.load(tmp_path / "engine").exact
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        engine_of("exact").save(tmp_path / "file" / "engine")
