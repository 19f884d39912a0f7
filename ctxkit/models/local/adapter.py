"""Everything that depends on transformers' internals: how its attention becomes ours, and what a model's layers are.

A model is switched to an attention function of the name "ctxkit" (transformers' `AttentionInterface`). In a forward pass
that carries a `Pass` the function hands queries, keys and values over to it; in any other it does what the model did
before. Nothing is read from class names: the layers' heads, rotations, windows and caps are seen in two passes over one
token (`probe`), so an architecture is either understood or refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask, sdpa_mask

from ctxkit.errors import ModelError
from ctxkit_kernels.attention import shift_turns, turned

ARGUMENT = "ctxkit_pass"
_NAMES = {"sdpa": "ctxkit", "eager": "ctxkit_eager"}
_PROBED_POSITION = 997  # far enough that a wrong pairing or frequency shows, near enough that float16 angles are exact
_TOLERANCE = 2e-2  # of a query's length: bfloat16 rounds by 4e-3


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

    @property
    def turnable(self) -> bool:
        """Whether every layer's queries can be turned, so that positions are free."""
        return all(layer.frequencies is not None for layer in self.layers)


def adopt(model: PreTrainedModel) -> None:
    """Switches the model's attention to ctxkit's. Raises ModelError where it has none that can be switched."""
    before = str(model.get_correct_attn_implementation(model.config._attn_implementation))
    if before in _NAMES.values():
        return
    _register()
    try:
        model.set_attn_implementation(_NAMES.get(before, "ctxkit"))
    except ValueError as error:
        raise ModelError(f"{type(model).__name__} takes no attention function of others: {error}") from error


def run(model: PreTrainedModel, ids: Tensor, positions: Tensor, doing: Pass, *, keep: int | Tensor) -> Tensor:
    """One forward pass; logits [batch, keep, vocabulary]. ids, positions: int64 [batch, queries]."""
    given: dict[str, Any] = {ARGUMENT: doing}
    output = model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep, **given)
    return output.logits


def hidden_states(model: PreTrainedModel, ids: Tensor, positions: Tensor, doing: Pass) -> Tensor:
    """One forward pass without the head; the last hidden states after the final norm, [batch, queries, size]."""
    given: dict[str, Any] = {ARGUMENT: doing}
    output = model.base_model(input_ids=ids, position_ids=positions, use_cache=False, **given)
    return output.last_hidden_state


def probe(model: PreTrainedModel) -> ModelShape:
    """Runs one token at two positions and reads off what every layer is. Raises ModelError."""
    near, far = _Probe(), _Probe()
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        run(model, ids, ids, near, keep=1)
        run(model, ids, ids + _PROBED_POSITION, far, keep=1)
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


def _attention(before: str) -> Any:
    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        ctxkit_pass: Pass | None = None,
        **given: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if ctxkit_pass is None:
            return _original(before, module)(module, query, key, value, attention_mask, **given)
        scale = given.get("scaling")
        call = AttentionCall(
            cast(int, module.layer_idx),
            query,
            key,
            value,
            query.shape[-1] ** -0.5 if scale is None else scale,
            given.get("softcap") or 0.0,
            given.get("s_aux"),
            given.get("sliding_window"),
        )
        return ctxkit_pass.attend(call), None

    return attention


def _original(before: str, module: torch.nn.Module) -> Any:
    """What the model computed its attention with: "eager" is a function of its own file."""
    if before == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
    return AttentionInterface()[before]


def _register() -> None:
    for before, name in _NAMES.items():
        if name not in AttentionInterface():
            AttentionInterface.register(name, _attention(before))
            AttentionMaskInterface.register(name, eager_mask if before == "eager" else sdpa_mask)
