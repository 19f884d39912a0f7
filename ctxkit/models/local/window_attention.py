"""What the last positions of a prompt attended to, seen while the model computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache

from ctxkit.errors import ModelError
from ctxkit.models.local.engine import Engine


class AttentionRecorder(TorchFunctionMode):
    """Within it, on this thread, each call of torch's scaled_dot_product_attention is also read.

    positions: how many the forward pass is fed. first_layer: calls before this one, counted from 0, are not read.

    Torch hands every call over with its true arguments: queries and keys after whatever the architecture does to them
    (rotation, norms, groups), its mask and its scale. So nothing is recomputed from weights, nothing is known about
    any architecture, and no registry, model or module is changed. One call is one attention layer.
    """

    def __init__(self, positions: int, first_layer: int) -> None:
        super().__init__()
        self.positions = positions
        self.first_layer = first_layer
        self.layers = 0
        self.most: torch.Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[Any], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named: Mapping[str, Any] = kwargs or {}
        if func is scaled_dot_product_attention:
            if self.layers >= self.first_layer:
                self._read(*args, **named)
            self.layers += 1
        return func(*args, **named)

    def _read(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        """Raises `most`, float32 [positions, keys]. A layer that slides has only the last keys."""
        if is_causal:
            attn_mask = torch.ones(self.positions, key.shape[2], dtype=torch.bool, device=key.device).tril()[None, None]
        layer = most_attention(query, key, attn_mask, self.positions, scale)
        narrow, wide = sorted((layer if self.most is None else self.most, layer), key=lambda rows: rows.shape[1])
        shared = wide[:, -narrow.shape[1] :]
        torch.maximum(shared, narrow, out=shared)
        self.most = wide


def most_attention(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, positions: int, scale: float | None = None
) -> torch.Tensor:
    """The largest probability over all heads, float32 [positions, keys], one group of heads at a time.

    query: [1, heads, positions, dims], or [1, groups, heads in a group, dims] for one position, as transformers packs
    it. key: [1, groups, keys, dims]. mask: bool (True: seen) or added to the logits, [1, 1 or heads, positions, keys].
    """
    groups, keys, dims = key.shape[1:]
    grouped = query.reshape(groups, -1, positions, dims)
    scale = 1 / math.sqrt(dims) if scale is None else scale
    masks = None
    if mask is not None:
        masks = mask[0].reshape(1 if mask.shape[1] == 1 else groups, -1, positions, keys).expand(groups, -1, -1, -1)
    most = torch.zeros(positions, keys, device=key.device)
    for group in range(groups):
        logits = grouped[group].float() @ key[0, group].float().T * scale  # [heads in the group, positions, keys]
        if masks is not None and masks.dtype == torch.bool:
            logits = logits.masked_fill(~masks[group], -math.inf)
        elif masks is not None:
            logits = logits + masks[group]
        torch.maximum(most, logits.softmax(-1).amax(0), out=most)
    return most


def window_attention(
    engine: Engine,
    ids: Sequence[int],
    *,
    window: int,
    first_layer: int,
    lookahead_tokens: int,
    eos_ids: Collection[int],
) -> torch.Tensor:
    """What `LocalModel.window_attention` gives, float32 [window + looked ahead, ids]."""
    cache = engine.new_cache()
    engine.prefill(ids[:-window], cache)
    rows, logits = _recorded(engine, ids[-window:], cache, first_layer)
    found = [rows]
    for _ in range(lookahead_tokens):
        token = int(logits.argmax())
        if token in eos_ids:
            break
        rows, logits = _recorded(engine, [token], cache, first_layer)
        found.append(rows)
    return torch.cat([_over_prompt(rows, len(ids), step) for step, rows in enumerate(found)])


def _recorded(
    engine: Engine, ids: Sequence[int], cache: DynamicCache, first_layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feeds ids: their attention, float32 [ids, keys], and the logits after the last, float32 [vocabulary]."""
    with AttentionRecorder(len(ids), first_layer) as recorder:
        logits = engine.forward(ids, cache)[-1]
    if recorder.most is None:
        raise ModelError(
            f"no attention to read: {recorder.layers} layers went through torch's scaled_dot_product_attention, and "
            f"`first_layer` is {first_layer}. Load the model with attn_implementation='sdpa', uncompiled"
        )
    return recorder.most, logits


def _over_prompt(rows: torch.Tensor, prompt: int, step: int) -> torch.Tensor:
    """Rows of a pass `step` tokens behind the prompt, over the prompt's own positions; [queries, prompt]."""
    whole = rows.new_zeros(len(rows), prompt + step)
    whole[:, prompt + step - rows.shape[1] :] = rows
    return whole[:, :prompt]
