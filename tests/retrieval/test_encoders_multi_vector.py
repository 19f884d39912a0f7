"""The adapter gives what sentence-transformers' MultiVectorEncoder gives, for tiny random checkpoints of each kind."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import MissingExtra, ModelNotFound
from ctxkit.protocols import Vectors
from ctxkit.retrieval import Index
from ctxkit.retrieval.encoders import MultiVectorEncoder, TokenVectors, encoder_from, loading

library = pytest.importorskip("sentence_transformers")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.multi_vector_encoder.modules import (  # noqa: E402
    HierarchicalTokenPooling,
    MultiVectorMask,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402

WORDS = "the a cat sat on mat bank raised rates by half point where is of".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
QUERIES = ["where is the cat", "rates", "", "?!", "the bank " * 20, "Zürich 東京 🎉 cat"]
DOCUMENTS = [
    "The cat sat, on the mat.",
    "the bank raised rates by half a point",
    "",
    "...",
    "cat 🎉 東京 naïve bank",
    "a",
]


def backbone(folder: Path, *, marks: bool = True, markers: bool = True) -> Path:
    """A random BERT of 32 dims and its tokenizer, whole words and letters; `marks`: [CLS] and [SEP].

    markers: the query and document markers are whole tokens; Stanford's checkpoints leave that to who loads them.
    """
    letters = [*string.ascii_lowercase, *("##" + c for c in string.ascii_lowercase), *string.punctuation]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *WORDS, *letters]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if markers:
        tokenizer.add_special_tokens(["[unused0]", "[unused1]"])
    if marks:
        ids = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ids)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, model_input_names=["input_ids", "attention_mask"], **names
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def checkpoint(folder: Path, *, pooling: bool = False, marks: bool = True, **knobs: object) -> Path:
    """A folder that sentence-transformers' MultiVectorEncoder saved; `knobs` go to its Transformer."""
    transformer = Transformer(str(backbone(folder / "backbone", marks=marks)), **knobs)
    torch.manual_seed(8)
    dense = Dense(32, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    modules = [transformer, dense, MultiVectorMask(list(string.punctuation)), Normalize("token_embeddings")]
    prompts = {"query": "[unused0] ", "document": "[unused1] "} if marks else None
    library.MultiVectorEncoder(
        modules=[*modules, *([HierarchicalTokenPooling(2)] if pooling else [])], prompts=prompts, device="cpu"
    ).save(str(folder / "model"))
    return folder / "model"


def stanford(folder: Path) -> Path:
    """A folder as Stanford's ColBERT writes it: projection among the weights, settings in artifact.metadata."""
    weights = transformers.BertModel.from_pretrained(backbone(folder, markers=False)).state_dict()
    torch.manual_seed(9)
    save_file(
        {**{f"bert.{name}": value for name, value in weights.items()}, "linear.weight": torch.randn(16, 32)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    (folder / "artifact.metadata").write_text(json.dumps({"query_maxlen": 12, "doc_maxlen": 30}))
    return folder


KINDS = {
    "colbert": lambda folder: checkpoint(
        folder, query_expansion={"strategy": "fixed", "length": 16}, document_length=24
    ),
    "attending": lambda folder: checkpoint(
        folder, query_expansion={"strategy": "fixed", "length": 16, "attend": True}, document_length=24
    ),
    "xtr": lambda folder: checkpoint(folder, query_length=20, document_length=24),
    "pooled": lambda folder: checkpoint(folder, pooling=True, query_length=20),
    "stanford": stanford,
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory) -> Path:
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def colbert(tmp_path_factory) -> Path:
    return KINDS["colbert"](tmp_path_factory.mktemp("colbert"))


def same(vectors: Vectors, expected: list[np.ndarray]) -> None:
    assert len(vectors) == len(expected)
    for i, rows in enumerate(expected):
        assert vectors[i].shape == rows.shape
        assert vectors[i] == pytest.approx(rows, abs=1e-5)
    assert np.linalg.norm(vectors.values, axis=1) == pytest.approx(np.ones(len(vectors.values)), abs=1e-5)


def test_rows_and_maxsim_are_those_of_sentence_transformers(folder):
    encoder = MultiVectorEncoder(str(folder), device="cpu", batch_size=3)
    model = library.MultiVectorEncoder(str(folder), device="cpu")
    queries, documents = encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)
    theirs = [
        encode(texts, convert_to_numpy=True)
        for encode, texts in ((model.encode_query, QUERIES), (model.encode_document, DOCUMENTS))
    ]
    same(queries, theirs[0])
    same(documents, theirs[1])
    ours = [
        [(documents[d] @ queries[q].T).max(axis=0).sum() for d in range(len(documents))] for q in range(len(queries))
    ]
    assert np.array(ours) == pytest.approx(model.similarity(*theirs).numpy(), abs=1e-4)
    assert (queries.values.dtype, encoder.dims, encoder.multi_vector) == (np.float32, 16, True)


def test_a_query_is_filled_with_masks_and_cut_as_the_checkpoint_says(colbert):
    encoder = MultiVectorEncoder(str(colbert), device="cpu")
    queries = encoder.encode_queries(QUERIES)
    assert isinstance(queries, TokenVectors)
    assert np.diff(queries.offsets).tolist() == [16] * len(QUERIES)
    assert queries.token_ids[:16].tolist() == [2, 5, *(7 + WORDS.index(w) for w in QUERIES[0].split()), 3, *[4] * 9]
    whole = MultiVectorEncoder(str(colbert), device="cpu", full_length_search=True)
    assert np.diff(whole.encode_queries(QUERIES).offsets).tolist() == [16, 16, 16, 16, 43, 16]
    assert whole.encode_queries(QUERIES[:1]).values == pytest.approx(queries[0], abs=1e-5)
    model = library.MultiVectorEncoder(str(colbert), device="cpu")
    model[0].query_expansion = {"strategy": "min", "length": 16}
    same(whole.encode_queries(QUERIES), model.encode_query(QUERIES, convert_to_numpy=True))


def test_full_length_search_reads_queries_whole_without_masks_too(tmp_path):
    place = str(KINDS["xtr"](tmp_path))
    cut, whole = (MultiVectorEncoder(place, device="cpu", full_length_search=full) for full in (False, True))
    assert [len(one.encode_queries([QUERIES[4]])[0]) for one in (cut, whole)] == [20, 43]


def test_tokens_and_their_places_are_known(folder):
    encoder = MultiVectorEncoder(str(folder), device="cpu")
    for encode, texts in ((encoder.encode_documents, DOCUMENTS), (encoder.encode_queries, QUERIES)):
        vectors = encode(texts)
        if encoder._pools:
            assert type(vectors) is Vectors
            continue
        assert isinstance(vectors, TokenVectors)
        for i, text in enumerate(texts):
            for row in range(vectors.offsets[i], vectors.offsets[i + 1]):
                token = encoder._reader.id_to_token(vectors.token_ids[row]).removeprefix("##")
                start, end = vectors.spans[row]
                assert token in SPECIAL if start == end else token in (text[start:end].lower(), "[UNK]", "u", "i")


def test_a_document_has_no_punctuation_and_a_query_has(colbert):
    encoder = MultiVectorEncoder(str(colbert), device="cpu")
    vectors = encoder.encode_documents(DOCUMENTS[:1])
    shown = [DOCUMENTS[0][start:end] for start, end in vectors.spans]
    assert shown == ["", "", *"The cat sat on the mat".split(), ""]
    assert encoder._reader.token_to_id("?") in encoder.encode_queries(["?!"]).token_ids


def test_nothing_of_a_long_document_is_lost(colbert):
    encoder = MultiVectorEncoder(str(colbert), device="cpu")
    long = "The cat sat, on the mat. The bank raised rates by half a point! " * 8
    vectors = encoder.encode_documents([long, DOCUMENTS[1]])
    shown = [long[start:end] for start, end in vectors.spans[: vectors.offsets[1]]]
    assert [word for word in shown if word] == long.translate(str.maketrans("", "", string.punctuation)).split()
    pieces = encoder._document_pieces(long)
    model = library.MultiVectorEncoder(str(colbert), device="cpu")
    same(
        vectors,
        [
            np.concatenate(model.encode_document(pieces, convert_to_numpy=True)),
            model.encode_document(DOCUMENTS[1], convert_to_numpy=True),
        ],
    )


@pytest.fixture(scope="module")
def cutter(colbert) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(colbert), device="cpu")


@settings(max_examples=100, deadline=None)
@given(
    text=st.lists(st.sampled_from([*WORDS, "unheardof", " ", ".", "東京", "🎉", "\n"]), max_size=90).map(" ".join)
    | st.text()
)
def test_pieces_are_the_text_and_are_read_whole(cutter, text):
    pieces = cutter._document_pieces(text)
    assert "".join(pieces) == text
    read = [len(cutter._reader.encode("[unused1] " + piece).ids) for piece in pieces]
    assert max(read) <= 24
    assert sum(read) - 3 * len(pieces) == len(cutter._reader.encode(text, add_special_tokens=False).ids)


def test_a_text_of_which_the_model_keeps_nothing_has_one_row(tmp_path):
    place = checkpoint(tmp_path, marks=False)
    encoder = MultiVectorEncoder(str(place), device="cpu")
    model = library.MultiVectorEncoder(str(place), device="cpu")
    assert len(model.encode_document("?!...", convert_to_numpy=True)) == 0
    vectors = encoder.encode_documents(["?!...", "cat"])
    assert np.diff(vectors.offsets).tolist() == [1, 1]
    assert vectors[0].tolist() == [[1.0] + [0.0] * 15]


def test_no_texts_no_rows(colbert):
    encoder = MultiVectorEncoder(str(colbert), device="cpu")
    for vectors in (encoder.encode_documents([]), encoder.encode_queries([])):
        assert (len(vectors), vectors.values.shape) == (0, (0, 16))


def test_an_index_of_it_opens_by_itself_and_answers_with_maxsim(colbert, tmp_path):
    encoder = MultiVectorEncoder(str(colbert), device="cpu", full_length_search=True)
    with Index.open(tmp_path, encoder=encoder, engine="exact", create=True) as index:
        index.add([Chunk(str(i), "a.md", text) for i, text in enumerate(DOCUMENTS)])
    documents, query = encoder.encode_documents(DOCUMENTS), encoder.encode_queries(["bank rates"]).values
    with Index.open(tmp_path) as index:
        hits = index.search("bank rates", 9, mode="dense")
    truth = [float((documents[i] @ query.T).max(axis=0).sum()) for i in range(len(DOCUMENTS))]
    assert [hit.score for hit in hits] == pytest.approx(sorted(truth, reverse=True), abs=1e-4)
    assert encoder_from("MultiVectorEncoder", encoder.name, multi_vector=True).fingerprint == encoder.fingerprint


def test_the_fingerprint_tells_how_queries_are_read_and_loads_nothing(colbert):
    cut, whole = MultiVectorEncoder(str(colbert)), MultiVectorEncoder(str(colbert), full_length_search=True)
    assert cut.fingerprint != whole.fingerprint
    assert (cut.name, whole.name, cut._loaded) == (str(colbert), f"{colbert}#full-length", None)
    assert cut.count_batch(["the cat", ""]) == [2, 0]


def test_what_was_never_trained_for_it_is_refused(tmp_path):
    plain = backbone(tmp_path / "plain")
    for name in (str(plain), str(tmp_path), "no/such-model"):
        with pytest.raises(ModelNotFound, match="is no multi-vector model.*TokenStateEncoder"):
            MultiVectorEncoder(name).encode_queries(["a"])
    broken = checkpoint(tmp_path / "broken")
    (broken / "modules.json").write_text("[]")
    (broken / "config.json").unlink(missing_ok=True)
    with pytest.raises(ModelNotFound, match="cannot be loaded as a MultiVectorEncoder"):
        MultiVectorEncoder(str(broken)).encode_queries(["a"])


def test_a_missing_package_names_the_extra(monkeypatch, colbert):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loading, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install '.\[retrieval\]'"):
        MultiVectorEncoder(str(colbert)).encode_queries(["a"])
