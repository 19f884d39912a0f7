"""What ctxkit's adapter takes from transformers, one fact per test: a release that moves one is named by what fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ctxkit.testing import tiny_llama
from tests.models.policies import architectures
from tests.models.policies.architectures import made

NAME = "ctxkit-contract"
CALLS: list[tuple[Any, ...]] = []


def _noting(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **given: Any) -> tuple[Any, None]:
    CALLS.append((module, query, key, value, attention_mask, given))
    return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    AttentionInterface.register(NAME, _noting)
    yield
    CALLS.clear()


def _called(model: PreTrainedModel, **more: Any) -> Any:
    """Runs three tokens with our attention function; the calls are in CALLS."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = NAME
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        return model(input_ids=ids, position_ids=torch.arange(3)[None], use_cache=False, **more)


def test_attention_functions_can_be_registered_and_are_found_by_name() -> None:
    assert NAME in AttentionInterface()


def test_attention_is_chosen_by_the_config_at_each_call() -> None:
    """`config._attn_implementation`, set after the model was made."""
    _called(tiny_llama())
    assert len(CALLS) == 2


def test_modules_keep_their_config() -> None:
    model = tiny_llama()
    assert all(hasattr(layer.self_attn, "config") for layer in model.model.layers)


def test_attention_modules_know_their_layer_number() -> None:
    _called(tiny_llama())
    assert [call[0].layer_idx for call in CALLS] == [0, 1]


def test_no_mask_is_built_for_an_attention_that_registered_none() -> None:
    assert NAME not in AttentionMaskInterface()
    _called(tiny_llama())
    assert CALLS[0][4] is None


def test_queries_and_keys_come_by_head() -> None:
    _called(tiny_llama())
    _, query, key, value, *_ = CALLS[0]
    assert query.shape == (1, 4, 3, 16)
    assert key.shape == value.shape == (1, 2, 3, 16)


def test_keys_come_rotated() -> None:
    model = tiny_llama()
    _called(model)
    key, layer = CALLS[0][2], model.model.layers[0]
    plain = layer.self_attn.k_proj(layer.input_layernorm(model.model.embed_tokens(torch.tensor([[5, 6, 7]]))))
    plain = plain.view(1, 3, 2, 16).transpose(1, 2)
    assert torch.allclose(key[:, :, 0], plain[:, :, 0], atol=1e-6)
    assert not torch.allclose(key[:, :, 1], plain[:, :, 1], atol=1e-3)


def test_the_scale_is_handed_over_as_scaling() -> None:
    _called(made(architectures.gemma2()))
    assert CALLS[0][5]["scaling"] == pytest.approx(16**-0.5)


def test_soft_caps_are_handed_over_as_softcap() -> None:
    _called(made(architectures.gemma2()))
    assert CALLS[0][5]["softcap"] == 3.0


def test_sliding_windows_are_handed_over_as_sliding_window() -> None:
    _called(made(architectures.gemma3()))
    assert [call[5]["sliding_window"] for call in CALLS] == [24, None, 24]


def test_learned_sinks_are_handed_over_as_s_aux() -> None:
    model = made(architectures.gpt_oss())
    _called(model)
    assert torch.equal(CALLS[0][5]["s_aux"], model.model.layers[0].self_attn.sinks)


def test_arguments_that_the_model_does_not_know_reach_attention() -> None:
    _called(tiny_llama(), ctxkit_pass="a pass")
    assert CALLS[0][5]["ctxkit_pass"] == "a pass"


def test_the_output_is_taken_by_token_and_head() -> None:
    """[batch, queries, heads, value dims]: of one token, attention to itself is its value."""
    model = tiny_llama()
    ids = torch.tensor([[5]])
    with torch.inference_mode():
        wanted = model(ids, use_cache=False).logits
        for module in model.modules():
            if hasattr(module, "config"):
                module.config._attn_implementation = NAME
        assert torch.allclose(model(ids, use_cache=False).logits, wanted, atol=1e-5)


@pytest.mark.parametrize("keep", [2, torch.tensor([1, 2])], ids=["number", "tensor"])
def test_logits_to_keep_leaves_the_others_out(keep: Any) -> None:
    every = _called(tiny_llama()).logits
    assert torch.equal(_called(tiny_llama(), logits_to_keep=keep).logits, every[:, 1:])


def test_the_base_model_gives_hidden_states_after_the_norm() -> None:
    model = tiny_llama()
    logits = _called(model).logits
    with torch.inference_mode():
        states = model.base_model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False).last_hidden_state
        assert torch.allclose(model.lm_head(states), logits, atol=1e-5)


def test_frequencies_are_buffers_that_end_in_inv_freq() -> None:
    names = [name for name, _ in tiny_llama().model.rotary_emb.named_buffers()]
    assert "inv_freq" in names
    kinds = [name for name, _ in made(architectures.gemma3()).model.rotary_emb.named_buffers()]
    assert {"sliding_attention_inv_freq", "full_attention_inv_freq"} <= set(kinds)


def test_rotary_modules_say_their_rope_type() -> None:
    """By which frequencies that change with the length of a text are told from those that do not."""
    assert made(architectures.dynamic()).model.rotary_emb.rope_type == "dynamic"
    assert set(made(architectures.gemma3()).model.rotary_emb.rope_type.values()) == {"default"}


def test_the_text_config_says_vocabulary_window_and_layers() -> None:
    found = tiny_llama().config.get_text_config()
    assert (found.vocab_size, found.max_position_embeddings, found.num_hidden_layers) == (273, 2048, 2)
