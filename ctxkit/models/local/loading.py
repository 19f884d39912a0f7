"""Reading a model folder into torch, and what the folder says about where an answer ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from ctxkit.errors import ModelNotFound
from ctxkit.tokens import TemplateCounter


def load_weights(
    folder: Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> PreTrainedModel:
    """The causal language model in `folder`, from safetensors only, on `device`. Raises ModelNotFound."""
    target = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    chosen = _stored_or_float32(folder, target) if dtype is None else _as_dtype(dtype)
    try:
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=chosen, local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"{str(folder)!r} holds no causal language model that can be loaded: {error}") from error
    torch.nn.Module.to(model, target)  # in place; the override is typed for no device
    return model


def eos_ids_of(model: PreTrainedModel, counter: TemplateCounter) -> frozenset[int]:
    """Tokens that end an answer: what the generation config, the config and the tokenizer name."""
    generation = getattr(model, "generation_config", None)
    found = _ids(getattr(generation, "eos_token_id", None)) | _ids(getattr(model.config, "eos_token_id", None))
    token = counter.variables.get("eos_token")
    return found | _ids(counter.tokenizer.token_to_id(token) if token else None)


def _ids(value: int | list[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset(value) if isinstance(value, list | tuple) else frozenset({value})


def _as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f'`dtype` must be a floating-point torch dtype such as "float32", got {dtype!r}')
    return found


def _stored_or_float32(folder: Path, device: torch.device) -> torch.dtype:
    """As stored, but float32 on a CPU that has no instructions for the stored 16-bit type: it would be far slower."""
    stored = _as_dtype(AutoConfig.from_pretrained(folder, local_files_only=True).dtype or torch.float32)
    if device.type != "cpu" or stored == torch.float32:
        return stored
    able = torch.cpu.get_capabilities()
    native = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")
    return stored if stored == torch.bfloat16 and native else torch.float32


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bar, whose switch is put back."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
