"""A second implementation of a Llama's attention, as the definition reads: every query against every token, in float64.

It shares nothing with the paged store but the model's weights. Its keys are never stored rotated; the angle between a
query and a token comes from the distance that the case names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM


@dataclass(frozen=True)
class Seen:
    """What one layer's queries see of T tokens.

    visible: bool [KV heads or 1, T, T], query by token. distance: int64 [KV heads or 1, T, T]; as they stand where
    None. bias: float64 [heads or 1, T, T], added to logits. scale: float64 [T], of queries. rest: bool [KV heads], for
    which the tokens before a query that it does not see are one token, the mean of keys and values, weighed by their
    number. reweigh: takes and gives probabilities [heads, T, T].
    """

    visible: Tensor
    distance: Tensor | None = None
    bias: Tensor | None = None
    scale: Tensor | None = None
    rest: Tensor | None = None
    reweigh: Callable[[Tensor], Tensor] | None = None


def distances(tokens: int) -> Tensor:
    """int64 [tokens, tokens], from a query back to a token."""
    places = torch.arange(tokens)
    return places[:, None] - places


@torch.inference_mode()
def dense_logits(model: LlamaForCausalLM, ids: Sequence[int], seen: Callable[[int], Seen]) -> Tensor:
    """Logits after each of `ids`, float64 [T, vocabulary]. seen: by layer."""
    inner = model.model
    frequencies = inner.rotary_emb.inv_freq.double()
    hidden = inner.embed_tokens(torch.tensor(list(ids)))  # [T, size]
    for number, layer in enumerate(inner.layers):
        normed = layer.input_layernorm(hidden)
        own = layer.self_attn
        q, k, v = (
            part(normed).view(len(ids), -1, own.head_dim).transpose(0, 1).double()  # [heads or KV heads, T, dims]
            for part in (own.q_proj, own.k_proj, own.v_proj)
        )
        out = attention(q, k, v, seen(number), frequencies, own.scaling)
        hidden = hidden + own.o_proj(out.transpose(0, 1).flatten(1).to(hidden))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(inner.norm(hidden)).double()


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Seen, frequencies: Tensor, scaling: float) -> Tensor:
    """q [heads, T, dims] and k, v [KV heads, T, dims], not rotated -> [heads, T, dims]."""
    tokens, groups = q.shape[1], len(q) // len(k)
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    if seen.scale is not None:
        q = q * seen.scale[:, None]
    stand = distances(tokens)
    distance = stand if seen.distance is None else _per_head(seen.distance, len(q))
    logits = _rotated_products(q, k, distance, frequencies) * scaling
    if seen.bias is not None:
        logits = logits + seen.bias
    visible = _per_head(seen.visible, len(q))
    logits = logits.masked_fill(~visible, -math.inf)
    if seen.rest is None:
        weights = logits.softmax(-1)
        return (weights if seen.reweigh is None else seen.reweigh(weights)) @ v
    unseen = ~visible & (stand >= 0) & seen.rest.repeat_interleave(groups)[:, None, None]
    count = unseen.sum(-1, keepdim=True)
    share = unseen / count.clamp_min(1)  # [heads, T, T], averages the tokens that are not seen
    mean_logit = (_rotated_products(q, k, stand, frequencies) * scaling * share).sum(-1, keepdim=True)
    weights = torch.cat([logits, mean_logit + count.double().log()], -1).softmax(-1)
    return weights[..., :-1] @ v + weights[..., -1:] * (share.double() @ v)


def _rotated_products(q: Tensor, k: Tensor, distance: Tensor, frequencies: Tensor) -> Tensor:
    """[heads, T, T]: q.k with the query rotated `distance` positions further than the key, as complex numbers."""
    half = q.shape[-1] // 2
    turning = torch.polar(torch.ones_like(distance, dtype=torch.float64)[..., None], distance[..., None] * frequencies)
    products = (
        torch.complex(q[..., :half], q[..., half:])[:, :, None] * torch.complex(k[..., :half], -k[..., half:])[:, None]
    )
    return (products * turning).real.sum(-1)


def _per_head(of_kv_heads: Tensor, heads: int) -> Tensor:
    if of_kv_heads.dim() == 2 or len(of_kv_heads) == 1:
        return of_kv_heads
    return of_kv_heads.repeat_interleave(heads // len(of_kv_heads), 0)
