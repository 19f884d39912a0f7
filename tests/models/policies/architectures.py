"""Random models of a few thousand weights, of every kind of attention that the store knows of, and some it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

_SIZES = {
    "vocab_size": 120,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _config(kind: str, **own: Any) -> Any:
    return getattr(transformers, f"{kind}Config")(**{**_SIZES, **own})


def llama() -> Any:
    return _config("Llama", num_hidden_layers=2)


def llama3_scaled() -> Any:
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return _config("Llama", num_hidden_layers=2, rope_parameters={**rope, "original_max_position_embeddings": 128})


def qwen3() -> Any:
    """Norms of queries and keys."""
    return _config("Qwen3", num_hidden_layers=2)


def mistral() -> Any:
    """Every layer slides."""
    return _config("Mistral", num_hidden_layers=2, sliding_window=24)


def gemma2() -> Any:
    """Soft caps; every other layer slides."""
    return _config(
        "Gemma2", num_hidden_layers=2, sliding_window=24, attn_logit_softcapping=3.0, query_pre_attn_scalar=16
    )


def gemma3() -> Any:
    """Two rotations: of layers that slide, and of those that do not."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return _config("Gemma3Text", num_hidden_layers=3, sliding_window=24, layer_types=kinds, query_pre_attn_scalar=16)


def gpt_oss() -> Any:
    """Learned sinks; every other layer slides; yarn."""
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
    return _config("GptOss", num_hidden_layers=2, sliding_window=24, rope_parameters=rope, **experts)


def partly_rotated() -> Any:
    """Half of a head's dimensions are rotated."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    return _config("Phi", num_hidden_layers=2, rope_parameters=rope)


def interleaved() -> Any:
    """Neighbouring dimensions are a pair: not the rotation that the store can turn."""
    return _config("Cohere", num_hidden_layers=2)


def dynamic() -> Any:
    """The frequencies change with the length of the text."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    return _config("Llama", num_hidden_layers=2, rope_parameters=rope)


PLACEABLE: list[Callable[[], Any]] = [llama, llama3_scaled, qwen3, mistral, gemma2, gemma3, gpt_oss, partly_rotated]
"""Their rotation is understood."""

SLIDING_KINDS: list[Callable[[], Any]] = [mistral, gemma2, gemma3, gpt_oss]
"""Some or all of their layers slide by 24 tokens."""

FIXED: list[Callable[[], Any]] = [interleaved, dynamic]
"""Tokens can be seen only from where they stand."""


def made(config: Any) -> PreTrainedModel:
    """Random float32 weights, the same each time. Sinks and norms get some too, which transformers leaves at 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                torch.nn.init.normal_(weight, mean=1.0 if "norm" in name else 0.0, std=0.3)
    return model
