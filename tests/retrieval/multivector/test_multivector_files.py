"""Saved engines come back the same, mapped; any damaged byte is detected, and the file that holds it is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ctxkit.errors import IndexMismatch, IndexNotFound, StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine, files

DIMS = 24
QUERY = np.random.default_rng(9).standard_normal((5, DIMS)).astype(np.float32)


def engine_of(kind: str) -> MultiVectorEngine:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((500, DIMS)).astype(np.float32)
    exact = BuildOptions(exact_below_tokens=10**6)
    options = {"exact": exact, "coded": BuildOptions(0, 30), "refined": BuildOptions(0, 30, refine=True)}[kind]
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
    assert all(isinstance(array, np.memmap) for array in loaded._part.to_arrays()[1].values())


@each_kind
def test_any_damaged_byte_is_detected_and_named(kind: str, tmp_path: Path) -> None:
    engine_of(kind).save(tmp_path)
    rng = np.random.default_rng(1)
    for path in sorted(tmp_path.iterdir()):
        good = path.read_bytes()
        places = {0, 7, len(good) // 2, len(good) - 1, *rng.integers(0, len(good), 12).tolist()}
        for place in places:
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            with pytest.raises((StoreError, IndexNotFound), match=path.name):
                MultiVectorEngine.load(tmp_path)
        path.write_bytes(good[:-1])
        with pytest.raises(StoreError, match=path.name):
            MultiVectorEngine.load(tmp_path)
        path.write_bytes(good)
    MultiVectorEngine.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound, match=r"engine\.json is missing"):
        MultiVectorEngine.load(tmp_path / "nowhere")
    engine_of("coded").save(tmp_path)
    (tmp_path / "tokens_norms.npy").unlink()
    with pytest.raises(StoreError, match="tokens_norms"):
        MultiVectorEngine.load(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    engine_of("exact").save(tmp_path)
    body = json.loads((tmp_path / files.NAME).read_text())
    del body["self_crc32"]
    body["format"] = 99
    (tmp_path / files.NAME).write_text(json.dumps({**body, "self_crc32": files._crc32_of(body)}))
    with pytest.raises(IndexMismatch, match="format 99"):
        MultiVectorEngine.load(tmp_path)


def test_a_save_over_an_engine_leaves_the_new_one(tmp_path: Path) -> None:
    engine_of("refined").save(tmp_path)
    engine_of("exact").save(tmp_path)
    assert MultiVectorEngine.load(tmp_path).exact


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        engine_of("exact").save(tmp_path / "file" / "engine")
