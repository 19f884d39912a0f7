"""Everything that depends on transformers' internals: how its attention becomes ours, and what a model's layers are.

For the time of a forward pass the model is switched to an attention function of the name "ctxkit" (transformers'
`AttentionInterface`), which hands queries, keys and values over to a `Pass`. Nothing is read from class names: the
layers' heads, rotations, windows and caps are seen in two passes over single tokens (`probe`), so an architecture is
either understood or refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from ctxkit.errors import ModelError
from ctxkit_kernels.attention import shift_turns, turned

ARGUMENT = "ctxkit_pass"
_NAME = "ctxkit"
_PROBED_POSITION = 997  # far enough that a wrong pairing or frequency shows, near enough that float16 angles are exact
_PROBED_TOKENS = 4
_TOLERANCE = 2e-2  # of a query's length: bfloat16 rounds by 4e-3

_Held = tuple[threading.RLock, tuple[Any, ...]]  # a model's lock, and the configs that its modules read
_models: WeakKeyDictionary[PreTrainedModel, _Held] = WeakKeyDictionary()
_models_lock = threading.Lock()


class Pass(Protocol):
    """What a forward pass does for attention."""

    def attend(self, call: AttentionCall) -> Tensor:
        """The attention's output, [batch, queries, heads, value dims]."""
        ...


@dataclass(frozen=True)
class AttentionCall:
    """One layer's attention in one forward pass, as the model asks for it.

    query: [batch, heads, queries, dims]. key: [batch, KV heads, queries, dims]. value: [batch, KV heads, queries,
    value dims]. Rotated and normed already. sliding: the layer's own window, None where it has none. softcap: 0 for
    none. sinks: learned logits [heads], or None.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    softcap: float
    sinks: Tensor | None
    sliding: int | None


@dataclass(frozen=True)
class LayerShape:
    """One attention layer.

    frequencies: float32 [pairs], RoPE's angle per position; None where the rotation is none of the half-split kind and
    keys can only be seen from where they stand.
    """

    heads: int
    kv_heads: int
    dims: int
    value_dims: int
    sliding: int | None
    frequencies: Tensor | None


@dataclass(frozen=True)
class ModelShape:
    """What the paged store has to know of a model."""

    layers: tuple[LayerShape, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def kv_heads(self) -> int:
        return self.layers[0].kv_heads

    @property
    def groups(self) -> int:
        """Heads that share one KV head."""
        return self.layers[0].heads // self.layers[0].kv_heads

    @cached_property
    def turnable(self) -> bool:
        """Whether every layer's queries can be turned, so that positions are free."""
        return all(layer.frequencies is not None for layer in self.layers)


@contextmanager
def _switched(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model's attention is ctxkit's; afterwards it is again what it was. One at a time per model."""
    if _NAME not in AttentionInterface():
        AttentionInterface.register(_NAME, _attention)  # no mask of this name: transformers then builds none
    lock, configs = _held(model)
    with lock:
        before = [(config, config._attn_implementation) for config in configs]
        try:
            for config, _ in before:
                config._attn_implementation = _NAME
            yield
        finally:
            for config, name in before:
                config._attn_implementation = name


def run(model: PreTrainedModel, fed: Tensor, positions: Tensor, doing: Pass, *, keep: int) -> Tensor:
    """One forward pass; logits [batch, keep, vocabulary].

    fed: ids int64 [batch, queries], or input embeddings [batch, queries, hidden size].
    positions: int64 [batch, queries].
    """
    given: dict[str, Any] = {ARGUMENT: doing, **_inputs(model, fed)}
    with _switched(model):
        return model(position_ids=positions, use_cache=False, logits_to_keep=keep, **given).logits


def _inputs(model: PreTrainedModel, fed: Tensor) -> dict[str, Tensor]:
    return {"inputs_embeds": fed.to(model.dtype)} if fed.is_floating_point() else {"input_ids": fed}


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model is as transformers made it, for this thread alone: ctxkit's other passes wait."""
    lock, _ = _held(model)
    with lock:
        yield


def decoder_layers(model: PreTrainedModel) -> tuple[torch.nn.Module, ...]:
    """The layers, first to last: the list whose entry i holds the attention that calls itself layer i.

    Raises ModelError where there is no such list of all layers.
    """
    wanted = list(range(int(model.config.get_text_config().num_hidden_layers)))
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and [_layer_index(layer) for layer in module] == wanted:
            return tuple(module)
    raise ModelError(f"the layers of {type(model).__name__} are not in one list; their states cannot be read apart")


def _layer_index(layer: torch.nn.Module) -> int | None:
    found = (getattr(module, "layer_idx", None) for module in layer.modules())
    return next((index for index in found if isinstance(index, int)), None)


def probe(model: PreTrainedModel) -> ModelShape:
    """Runs a few texts of one token at two positions and reads off what every layer is. Raises ModelError."""
    near, far = _Probe(), _Probe()
    size = int(model.config.get_text_config().vocab_size)  # spread over it: the embedding of a padding token is zero
    ids = (torch.arange(_PROBED_TOKENS, device=model.device) * size // _PROBED_TOKENS)[:, None]
    stand = torch.zeros_like(ids)
    with torch.inference_mode():
        run(model, ids, stand, near, keep=1)
        run(model, ids, stand + _PROBED_POSITION, far, keep=1)
    if not near.calls:
        raise ModelError(f"{type(model).__name__} did not call the attention function it was given; it cannot be paged")
    known = [candidate.to(model.device) for candidate in _frequencies(model)]
    shapes = [_layer(one, far.calls[index], known) for index, one in sorted(near.calls.items())]
    kinds = {(shape.heads, shape.kv_heads, shape.dims, shape.value_dims) for shape in shapes}
    if list(near.calls) != list(range(len(shapes))) or len(kinds) > 1:
        raise ModelError(f"{type(model).__name__} has layers of several kinds ({sorted(kinds)}); it cannot be paged")
    return ModelShape(tuple(shapes), near.calls[0].key.dtype, near.calls[0].key.device)


class _Probe:
    """Notes every call; one token attends to itself, so its value is the answer."""

    def __init__(self) -> None:
        self.calls: dict[int, AttentionCall] = {}

    def attend(self, call: AttentionCall) -> Tensor:
        self.calls[call.layer] = call
        groups = call.query.shape[1] // call.value.shape[1]
        out = call.value.repeat_interleave(groups, dim=1)
        if call.sinks is not None:
            logits = (call.query * call.key.repeat_interleave(groups, dim=1)).sum(-1) * call.scale
            out = out * torch.sigmoid(logits - call.sinks[:, None])[..., None]
        return out.transpose(1, 2).to(call.query.dtype)


def _layer(near: AttentionCall, far: AttentionCall, known: list[Tensor]) -> LayerShape:
    heads, kv_heads = near.query.shape[1], near.key.shape[1]
    one, other = near.query.float(), far.query.float()
    if not one.any():
        raise ModelError(f"layer {near.layer} has queries of zeros, in which no rotation shows; it cannot be paged")
    found = next((frequencies for frequencies in known if _explains(one, other, frequencies)), None)
    if found is None and torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * float(one.abs().max())):
        found = torch.zeros(0, device=one.device)  # this layer has no positions at all
    return LayerShape(heads, kv_heads, near.key.shape[-1], near.value.shape[-1], near.sliding, found)


def _explains(near: Tensor, far: Tensor, frequencies: Tensor) -> bool:
    if 2 * len(frequencies) > near.shape[-1]:
        return False
    turns = shift_turns(torch.tensor([_PROBED_POSITION], device=near.device), frequencies)
    return bool((turned(near, turns.cos, turns.sin) - far).norm() <= _TOLERANCE * far.norm())


def _frequencies(model: PreTrainedModel) -> Iterator[Tensor]:
    """Every set of RoPE frequencies that the model holds, but for those that it changes with the length of the text."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        names = [name for name, _ in module.named_buffers(recurse=False) if name.endswith("inv_freq")]
        for name in names:
            kind = kinds.get(name.removesuffix("_inv_freq"), "") if isinstance(kinds, dict) else kinds
            if "original" not in name and kind not in ("dynamic", "longrope"):
                yield cast(Tensor, getattr(module, name)).float()


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    ctxkit_pass: Pass | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    if ctxkit_pass is None:
        raise ModelError("the model was called while ctxkit runs it in another thread; take turns, or load it twice")
    scale, softcap = given.get("scaling"), given.get("softcap")
    call = AttentionCall(
        layer=cast(int, module.layer_idx),
        query=query,
        key=key,
        value=value,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        softcap=softcap or 0.0,
        sinks=given.get("s_aux"),
        sliding=given.get("sliding_window"),
    )
    return ctxkit_pass.attend(call), None


def _held(model: PreTrainedModel) -> _Held:
    with _models_lock:
        if model not in _models:
            configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
            _models[model] = threading.RLock(), tuple(configs.values())
        return _models[model]
