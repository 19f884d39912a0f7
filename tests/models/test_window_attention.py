"""Window attention against transformers' own attentions, over several architectures with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ctxkit.errors import PromptError
from ctxkit.models import LocalModel
from ctxkit.protocols import WindowAttention
from ctxkit.testing import TINY_TEMPLATE, ScriptedModel, tiny_counter, tiny_llama, tiny_model, tiny_tokenizer
from ctxkit.tokens import TemplateCounter

SIZES: dict[str, Any] = {
    "vocab_size": tiny_tokenizer().get_vocab_size(),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "mistral, sliding": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=24)),
    "gemma 3, sliding and full": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SIZES,
            head_dim=8,
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request: pytest.FixtureRequest) -> LocalModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LocalModel(KINDS[request.param](), tiny_counter(), prefill_tokens=50)


def _attentions(model: LocalModel, ids: tuple[int, ...]) -> np.ndarray:
    """All of it, by transformers in one pass; [layers, heads, ids, ids]."""
    model.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            output = model.model(torch.tensor([ids]), output_attentions=True, use_cache=False)
        return torch.stack(output.attentions)[:, 0].numpy()
    finally:
        model.model.set_attn_implementation("sdpa")


def _ids(model: LocalModel, n: int = 140) -> tuple[int, ...]:
    return (model.prompt_ids("the rain in the lane again " * 20))[:n]


@pytest.mark.parametrize(("window", "first_layer"), [(1, 0), (30, 0), (64, 1), (140, 0)])
def test_it_is_the_largest_of_all_heads_and_layers(model: LocalModel, window: int, first_layer: int) -> None:
    ids = _ids(model)
    rows = model.window_attention(ids, window=window, first_layer=first_layer)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, _attentions(model, ids)[first_layer:, :, -window:].max((0, 1)), atol=2e-5)


def test_what_is_looked_ahead_attends_too(model: LocalModel) -> None:
    ids = _ids(model)
    answer: list[int] = []
    for _ in range(3):
        answer.append(int(model.logits([*ids, *answer])[0].argmax()))
    endless = LocalModel(model.model, model.counter, eos_ids=())
    rows = endless.window_attention(ids, window=5, lookahead_tokens=3)
    wanted = _attentions(model, (*ids, *answer)).max((0, 1))[len(ids) - 5 :, : len(ids)]
    np.testing.assert_allclose(rows, wanted, atol=2e-5)


def test_looking_ahead_ends_with_the_answer(tiny: LocalModel) -> None:
    ids = _ids(tiny)
    ending = LocalModel(tiny.model, tiny.counter, eos_ids=range(tiny.counter.tokenizer.get_vocab_size()))
    assert ending.window_attention(ids, window=5, lookahead_tokens=3).shape == (5, len(ids))


def test_how_the_prompt_is_read_changes_nothing(tiny: LocalModel) -> None:
    ids = _ids(tiny)
    small = LocalModel(tiny.model, tiny.counter, prefill_tokens=7)
    np.testing.assert_allclose(small.window_attention(ids, window=20), tiny.window_attention(ids, window=20), atol=1e-5)


def test_the_model_is_left_as_it_was(tiny: LocalModel) -> None:
    ids = _ids(tiny)
    before, logits = tiny.model.config._attn_implementation, tiny.logits(ids)
    tiny.window_attention(ids, window=20, lookahead_tokens=2)
    assert tiny.model.config._attn_implementation == before
    np.testing.assert_array_equal(tiny.logits(ids), logits)


def test_it_does_not_matter_how_the_model_computes_attention_by_itself(tiny: LocalModel) -> None:
    eager = tiny_model()
    eager.model.set_attn_implementation("eager")
    np.testing.assert_array_equal(
        eager.window_attention(_ids(eager), window=4), tiny.window_attention(_ids(tiny), window=4)
    )


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"window": 0}, PromptError, "`window` must be from 1 to the number of ids, 140; got 0"),
        ({"window": 141}, PromptError, "got 141"),
        ({"window": 4, "first_layer": 2}, ValueError, r"`first_layer` must be in \[0, 2\)"),
        ({"window": 4, "lookahead_tokens": -1}, ValueError, "`lookahead_tokens` must be 0 or more, got -1"),
        ({"window": 4, "lookahead_tokens": 9_999}, PromptError, "the window holds 2,048"),
    ],
)
def test_wrong_values_are_named(tiny: LocalModel, wrong: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny.window_attention(_ids(tiny), **wrong)


def test_the_capability_is_named_and_has_its_methods(tiny: LocalModel) -> None:
    assert "attention_evidence" in tiny.capabilities
    assert isinstance(tiny, WindowAttention)
    assert not isinstance(ScriptedModel([]), WindowAttention)


@pytest.mark.parametrize("prompt", ["Hello 42", "naïve\n\n日本 🎉", "a <|im_end|> b", " lead and trail \n"])
def test_located_tokens_are_those_that_are_fed_and_spell_the_prompt(tiny: LocalModel, prompt: str) -> None:
    found = tiny.locate(prompt)
    assert found.ids == tiny.prompt_ids(prompt)
    assert list(found.starts) == sorted(found.starts)
    own = [i for i, start in enumerate(found.starts) if 0 <= start < len(prompt)]
    decoder = tiny.counter.tokenizer
    assert decoder.decode([found.ids[i] for i in own], skip_special_tokens=False) == prompt
    assert found.starts[0] == -1
    assert found.starts[-1] == len(prompt)


def test_located_tokens_of_a_template_that_trims_are_counted_in_the_prompt_as_given() -> None:
    counter = TemplateCounter(
        tiny_tokenizer(), TINY_TEMPLATE.replace("message['content'] }}", "message['content'] | trim }}")
    )
    found = counter.locate("  ab ")
    assert [start for start in found.starts if 0 <= start < 5] == [2, 3]


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_a_prompt_of_nothing_has_tokens_of_the_template_only(tiny: LocalModel, prompt: str) -> None:
    assert tiny.locate(prompt).ids == tiny.prompt_ids(prompt)


def test_a_template_that_rewrites_is_refused() -> None:
    counter = TemplateCounter(
        tiny_tokenizer(), TINY_TEMPLATE.replace("message['content'] }}", "message['content'] | upper }}")
    )
    with pytest.raises(PromptError, match="rewrites messages"):
        counter.locate("abc")
