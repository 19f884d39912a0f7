"""A language model's hidden states as vectors: what is pooled, what Token Prepending computes, what an index keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, ModelError, PromptError
from ctxkit.models import DEFAULT_MODEL, LocalModel
from ctxkit.models.local.adapter import decoder_layers
from ctxkit.models.local.encoder import ONE_WORD, CausalEncoder
from ctxkit.models.local.hidden_states import TextBatch, hidden_states
from ctxkit.models.local.text_pieces import Cutter
from ctxkit.models.prepare import is_prepared, model_folder
from ctxkit.protocols import TokenVectors
from ctxkit.retrieval import CentredEncoder, Index
from ctxkit.testing import tiny_counter, tiny_llama_config, tiny_model, tiny_tokenizer
from ctxkit.tokens import TemplateCounter

TEXTS = ["the rain in spain", "", "x", "another rather longer text about there and then, and again", "the rain"]
LAYERS = 5
FACTS = [  # few words in common
    ("The Nile flows north through Egypt to the Mediterranean.", "Which river runs across an African country?"),
    ("Mozart wrote his first symphony at the age of eight.", "Who composed music as a child?"),
    ("Penicillin was discovered in 1928 by Alexander Fleming.", "When did we find antibiotics?"),
    ("Bake the bread for forty minutes in a hot oven.", "How long does a loaf have to cook?"),
    ("The goalkeeper saved two penalties in the final.", "What happened in the football match?"),
    ("Interest rates rose by half a percent in March.", "What did the central bank do?"),
]
ATOL = 2e-6


def _deep_llama() -> Any:
    """The tiny Llama with layers enough for something to be prepended in some of them."""
    from transformers import LlamaForCausalLM

    config = tiny_llama_config()
    config.num_hidden_layers = LAYERS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel(_deep_llama(), tiny_counter())


def _loop(model: LocalModel, ids: list[int], *, layer: int, placeholder: int = 0, prepend_layers: int = 0) -> Tensor:
    """States [tokens, hidden size] by a plain loop over the layers, without a hook."""
    inner: Any = model.model.model
    with torch.inference_mode():
        states = inner.embed_tokens(torch.tensor([ids]))
        angles = inner.rotary_emb(states, torch.arange(len(ids))[None])
        for number in range(layer):
            if 1 <= number <= prepend_layers:
                states[:, placeholder] = states[:, -1]
            states = inner.layers[number](states, attention_mask=None, position_embeddings=angles)
        return (inner.norm(states) if layer == LAYERS else states)[0]


def _unit(rows: Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


def _ids(text: str) -> list[int]:
    return [1, *tiny_tokenizer().encode(text).ids]  # 1: the token that every text starts with


# --- what is computed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 3, LAYERS])
@pytest.mark.parametrize("prepend_layers", [0, 1, 2])
def test_token_prepending_is_the_loop_that_copies_the_last_state_before_each_layer(
    model: LocalModel, layer: int, prepend_layers: int
) -> None:
    texts = [[1, 2, *range(9, 9 + length)] for length in (1, 7, 20)]
    ids = torch.tensor([text + [0] * (22 - len(text)) for text in texts])
    batch = TextBatch(ids, torch.tensor([len(text) - 1 for text in texts]), torch.tensor([1, 1, 1]))
    found = hidden_states(model.model, batch, layer=layer, prepend_layers=prepend_layers)
    for text, states in zip(texts, found, strict=True):
        wanted = _loop(model, text, layer=layer, placeholder=1, prepend_layers=min(prepend_layers, max(layer - 1, 0)))
        torch.testing.assert_close(states[: len(text)], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "named"])
def test_any_layer_of_any_architecture_is_what_transformers_gives(kind: str) -> None:
    model, handle = _other(kind), None
    ids = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = model.base_model(ids[:1, :9], output_hidden_states=True).hidden_states
    if kind == "named":  # as some call their layers: states by name
        layer = decoder_layers(model)[2]
        handle = layer.register_forward_pre_hook(lambda _, args, given: ((), _by_name(args, given)), with_kwargs=True)
    for layer in range(4):
        found = hidden_states(model, TextBatch(ids, torch.tensor([8, 11])), layer=layer)
        torch.testing.assert_close(found[:1, :9], wanted[layer], atol=1e-4, rtol=1e-4)
    assert (handle is None) == (kind != "named")


def _by_name(args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    return {"hidden_states": args[0], **given} if args else given


def _other(kind: str) -> Any:
    from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig

    sizes = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    more = {"intermediate_size": 16, "num_key_value_heads": 1, "head_dim": 8}
    config: Any = {
        "gpt2": lambda: GPT2Config(vocab_size=99, n_embd=16, n_layer=3, n_head=2, bos_token_id=0, eos_token_id=0),
        "gemma2": lambda: Gemma2Config(**sizes, **more, sliding_window=4),
        "named": lambda: LlamaConfig(**sizes, **more),
    }[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def test_token_prepending_shows_the_whole_text_to_its_first_token(model: LocalModel) -> None:
    def first_row(end: str, prepend_layers: int) -> np.ndarray:
        encoder = model.encoder("tokens", prepend_layers=prepend_layers)
        return encoder.encode_documents([f"the same beginning, {end}"]).values[0]

    np.testing.assert_allclose(first_row("A", 0), first_row("Z", 0), atol=ATOL)
    assert np.abs(first_row("A", 2) - first_row("Z", 2)).max() > 1e-3


@pytest.mark.parametrize("layer", [-1, 3, 0])
def test_each_pooling_is_what_it_says(model: LocalModel, layer: int) -> None:
    text = TEXTS[3]
    states = _loop(model, _ids(text), layer=LAYERS if layer == -1 else layer)
    own = states[1:]
    weights = torch.arange(1.0, len(own) + 1)
    wanted = {
        "mean": own.mean(0, keepdim=True),
        "weighted": (own * weights[:, None]).sum(0, keepdim=True) / weights.sum(),
        "last": states[-1:],
        "tokens": own,
    }
    for pooling, rows in wanted.items():
        found = CausalEncoder(model, pooling, layer=layer, prompt="{text}").encode_documents([text])
        np.testing.assert_allclose(found.values, _unit(rows), atol=1e-4)


def test_of_a_prompt_only_the_text_is_pooled_and_the_last_token_is_the_prompts(model: LocalModel) -> None:
    before, after = ONE_WORD.split("{text}")
    ids = _ids(before + "rain" + after)
    start, end = len(_ids(before)), len(_ids(before + "rain"))
    states = _loop(model, ids, layer=LAYERS)
    mean = model.encoder("mean", prompt=ONE_WORD).encode_documents(["rain"])
    last = model.encoder("last", prompt=ONE_WORD).encode_documents(["rain"])
    np.testing.assert_allclose(mean.values, _unit(states[start:end].mean(0, keepdim=True)), atol=1e-4)
    np.testing.assert_allclose(last.values, _unit(states[-1:]), atol=1e-4)


def test_the_placeholder_stands_before_the_text_not_before_the_prompt() -> None:
    piece = next(Cutter(tiny_tokenizer(), 512, start=1, placeholder=2).pieces(["rain"], ONE_WORD))
    before = len(_ids(ONE_WORD.split("{text}")[0]))
    assert (piece.placeholder, piece.first, piece.ids[before]) == (before, before + 1, 2)
    assert tiny_tokenizer().decode(list(piece.ids[piece.first : piece.end])) == "rain"


# --- whole texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "weighted", "last", "tokens"])
@pytest.mark.parametrize("prepend_layers", [0, 2])
def test_a_text_has_the_same_vector_in_any_company(model: LocalModel, pooling: Any, prepend_layers: int) -> None:
    encoder = CausalEncoder(model, pooling, prepend_layers=prepend_layers, prompt=ONE_WORD, batch_tokens=200)
    together = encoder.encode_documents(TEXTS)
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(together[number], encoder.encode_documents([text])[0], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(together.values, axis=1), 1, atol=1e-5)
    assert together.values.dtype == np.float32


def test_a_text_without_tokens_has_the_state_of_the_last_token_read(model: LocalModel) -> None:
    wanted = _unit(_loop(model, [1], layer=LAYERS))
    for pooling in ("mean", "weighted", "last", "tokens"):
        found = CausalEncoder(model, pooling, prompt="{text}").encode_documents([""])
        np.testing.assert_allclose(found.values, wanted, atol=1e-4)
    assert model.encoder("tokens").encode_documents([""]).spans.tolist() == [[0, 0]]  # type: ignore[attr-defined]


def test_a_tokenizer_without_special_tokens_starts_with_token_0(model: LocalModel) -> None:
    plain = LocalModel(model.model, TemplateCounter(tiny_tokenizer()))
    found = plain.encoder("mean").encode_documents([""])
    np.testing.assert_allclose(found.values, _unit(_loop(model, [0], layer=LAYERS)), atol=1e-4)


def test_a_window_larger_than_the_models_is_refused() -> None:
    with pytest.raises(PromptError, match="window"):
        tiny_model(window_tokens=32).encoder("mean").encode_documents(["x", "0123456789" * 4])


def test_no_texts_are_no_rows(model: LocalModel) -> None:
    for encoder in (model.encoder(), model.encoder("tokens")):
        assert encoder.encode_documents([]).values.shape == (0, encoder.dims)
        assert len(encoder.encode_queries([])) == 0


def test_a_long_document_has_a_row_for_each_window_and_a_long_query_one(model: LocalModel) -> None:
    encoder = model.encoder(window_tokens=16)
    text = "".join(chr(65 + i % 26) for i in range(50))  # a token each; windows at 0, 12, 24 and 36
    documents = encoder.encode_documents([text, "x"])
    assert np.diff(documents.offsets).tolist() == [4, 1]
    parts = model.encoder().encode_documents([text[:16], text[12:28], text[24:40], text[36:]])
    np.testing.assert_allclose(documents[0], parts.values, atol=1e-4)
    query = encoder.encode_queries([text, "x"])
    mean = parts.values.sum(0)
    np.testing.assert_allclose(query[0], mean[None] / np.linalg.norm(mean), atol=1e-4)
    np.testing.assert_allclose(query[1], documents[1], atol=1e-4)


@pytest.mark.parametrize("window_tokens", [1, 3, 16, 512])
def test_every_token_of_a_text_is_one_row_that_knows_its_place(model: LocalModel, window_tokens: int) -> None:
    texts = ["the rain in spain stays mainly in the plain", "", "naïve 🙂 <|im_end|>"]
    found = model.encoder("tokens", window_tokens=window_tokens).encode_documents(texts)
    assert isinstance(found, TokenVectors)
    assert np.diff(found.offsets).tolist() == [max(1, n) for n in model.encoder().count_batch(texts)]
    spans = found.spans[: found.offsets[1]]
    assert "".join(texts[0][start:end] for start, end in spans.tolist()) == texts[0]
    assert 2 not in found.token_ids[found.offsets[2] :]  # what spells a control token is text


def test_queries_have_a_prompt_of_their_own(model: LocalModel) -> None:
    encoder = model.encoder(query_prompt="query: {text}")
    asked, told = encoder.encode_queries(["rain"]).values, encoder.encode_documents(["rain"]).values
    np.testing.assert_allclose(told, model.encoder().encode_queries(["rain"]).values, atol=ATOL)
    np.testing.assert_allclose(
        asked, model.encoder(prompt="query: {text}").encode_documents(["rain"]).values, atol=ATOL
    )
    assert np.abs(asked - told).max() > 1e-3


# --- the model stays what it is --------------------------------------------------------------------------------


def test_the_model_answers_as_before_and_keeps_no_hook_and_no_memory(model: LocalModel) -> None:
    before, used = model.logits(_ids("the rain")), model.engine.pool.used
    model.encoder("last", prepend_layers=2, layer=3).encode_documents(TEXTS)
    np.testing.assert_array_equal(model.logits(_ids("the rain")), before)
    assert model.engine.pool.used == used
    assert not any(layer._forward_pre_hooks for layer in decoder_layers(model.model))


def test_generation_in_another_thread_is_not_disturbed(model: LocalModel) -> None:
    wanted, alone = model.logits(_ids("rain")), model.encoder(prepend_layers=2).encode_documents(TEXTS).values
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.extend(model.logits(_ids("rain")) for _ in range(10)))
    thread.start()
    for _ in range(10):
        np.testing.assert_allclose(model.encoder(prepend_layers=2).encode_documents(TEXTS).values, alone, atol=ATOL)
    thread.join()
    assert len(found) == 10
    for logits in found:
        np.testing.assert_allclose(logits, wanted, atol=1e-5)


def test_a_model_called_behind_ctxkits_back_is_not_prepended_to(model: LocalModel) -> None:
    ids = torch.tensor([_ids("the rain")])
    with torch.inference_mode():
        wanted = model.model(ids).logits
    inside: list[Tensor] = []

    def other_thread(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: inside.append(model.model(ids).logits.detach()))
            thread.start()
            thread.join()

    handle = decoder_layers(model.model)[4].register_forward_hook(other_thread)
    try:
        model.encoder(prepend_layers=3).encode_documents(["x"])
    finally:
        handle.remove()
    torch.testing.assert_close(inside[0], wanted)


# --- settings and identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, "`pooling` must be one of mean, weighted, last, tokens, got 'max'"),
        ({"prompt": "no place"}, "`prompt` must hold {text} once"),
        ({"query_prompt": "{text} {text}"}, "`query_prompt` must hold {text} once"),
        ({"layer": 6}, r"`layer` must be in \[-6, 5\]"),
        ({"layer": -7}, r"`layer` must be in \[-6, 5\]"),
        ({"prepend_layers": 5}, r"`prepend_layers` must be in \[0, 4\]"),
        ({"prepend_layers": 3, "layer": 3}, r"`prepend_layers` must be in \[0, 2\]"),
        ({"prepend_layers": -1}, "`prepend_layers`"),
        ({"window_tokens": 0}, "at least 1"),
        ({"batch_tokens": 0}, "at least 1"),
    ],
)
def test_settings_that_the_model_cannot_have_are_refused(
    model: LocalModel, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CausalEncoder(model, **settings)


def test_states_that_are_no_numbers_never_reach_an_index() -> None:
    broken = tiny_model()
    broken.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="load it as float32 or bfloat16"):
        broken.encoder().encode_documents(["rain"])


def test_layers_that_cannot_be_told_apart_are_refused() -> None:
    turned = tiny_model()
    turned.model.model.layers = torch.nn.ModuleList(reversed(turned.model.model.layers))
    with pytest.raises(ModelError, match="not in one list"):
        turned.encoder().encode_documents(["rain"])


def _variants(model: LocalModel) -> Iterator[CausalEncoder]:
    yield CausalEncoder(model)
    yield CausalEncoder(model, "mean")
    yield CausalEncoder(model, prompt="{text}")
    yield CausalEncoder(model, query_prompt="{text}")
    yield CausalEncoder(model, layer=3)
    yield CausalEncoder(model, prepend_layers=2)
    yield CausalEncoder(model, window_tokens=100)


def test_the_fingerprint_is_that_of_weights_and_settings(model: LocalModel) -> None:
    found = [encoder.fingerprint for encoder in _variants(model)]
    assert len(set(found)) == len(found)
    assert found == [encoder.fingerprint for encoder in _variants(LocalModel(_deep_llama(), tiny_counter()))]
    assert CausalEncoder(model, layer=LAYERS).fingerprint == found[0]  # -1 by its other name
    assert (
        CausalEncoder(model, prompt=ONE_WORD, query_prompt=ONE_WORD, batch_tokens=1).fingerprint == found[0]
    )  # the same vectors
    assert tiny_model(seed=1).encoder().fingerprint != tiny_model(seed=0).encoder().fingerprint


def test_the_name_says_what_is_taken(model: LocalModel) -> None:
    assert model.encoder("last", prepend_layers=2, layer=3).name == "tiny-llama#last+prepend2+layer3"
    assert repr(model.encoder()) == "CausalEncoder('tiny-llama#last', dims=64)"


# --- in an index -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "tokens"])
def test_an_index_made_with_it_opens_again_with_the_same_model_only(tmp_path: Path, pooling: Any) -> None:
    texts = {"a": "the rain in spain", "b": "1234 5678", "c": "there and then"}
    with Index.open(tmp_path / "index", encoder=tiny_model().encoder(pooling), create=True) as index:
        index.add([Chunk(name, "notes", text) for name, text in texts.items()])
        before = index.search("1234 5678", mode="dense")
    with Index.open(tmp_path / "index", encoder=tiny_model().encoder(pooling)) as index:
        found = index.search("1234 5678", mode="dense")
    assert [(hit.chunk.id, hit.score) for hit in found] == [(hit.chunk.id, hit.score) for hit in before]
    assert found[0].chunk.id == "b"
    with pytest.raises(IndexMismatch, match="was made by encoder"):
        Index.open(tmp_path / "index", encoder=tiny_model(seed=1).encoder(pooling))
    with Index.open(tmp_path / "index") as index, pytest.raises(IndexMismatch, match=r"Pass that encoder"):
        index.search("rain", mode="dense")


def test_a_language_model_finds_what_a_question_is_about() -> None:
    if not is_prepared(model_folder(DEFAULT_MODEL)):
        pytest.skip(f"{DEFAULT_MODEL} is not prepared; run: ctxkit models prepare {DEFAULT_MODEL}")
    texts, questions = zip(*FACTS, strict=True)
    encoder = CentredEncoder.fit(LocalModel.load().encoder(layer=25), texts, questions)
    scores = encoder.encode_queries(questions).values @ encoder.encode_documents(texts).values.T
    assert (scores.argmax(1) == np.arange(len(FACTS))).sum() >= len(FACTS) - 1


def test_token_rows_show_which_words_match(tmp_path: Path) -> None:
    with Index.in_memory(encoder=tiny_model().encoder("tokens")) as index:
        index.add([Chunk("a", "notes", "the rain in spain")])
        hit = index.search("rain", k=1, mode="dense")[0]
    assert hit.matches and all(0 <= match.start <= match.end <= 17 for match in hit.matches)
