"""The published way to evict: transformers' own model and cache, from which tokens are cut. The policies' oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies import Policy
from ctxkit.testing import tiny_llama


class Dense:
    """positions: int64 [KV heads, stored], where each layer's stored tokens stand in the text."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        model.set_attn_implementation("eager")
        self.model = model
        self.layers = model.config.num_hidden_layers
        self.kv_heads = model.config.num_key_value_heads
        self.cache = DynamicCache()
        self.positions = [torch.zeros(self.kv_heads, 0, dtype=torch.long) for _ in range(self.layers)]
        self.length = 0

    def feed(self, ids: Sequence[int], *, at: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """(logits [ids, vocabulary], per layer the probabilities [KV heads, heads in a group, ids, stored])."""
        own = torch.arange(len(ids)) + self.length
        places = own if at is None else own - self.length + at
        with torch.inference_mode():
            done = self.model(
                torch.tensor([list(ids)]),
                position_ids=places[None],
                past_key_values=self.cache,
                use_cache=True,
                output_attentions=True,
            )
        self.length += len(ids)
        self.positions = [torch.cat([old, own.expand(self.kv_heads, -1)], dim=1) for old in self.positions]
        return done.logits[0], [seen[0].unflatten(0, (self.kv_heads, -1)) for seen in done.attentions]

    def keep(self, layer: int, index: Tensor) -> None:
        """Cuts a layer's cache to the tokens of index [KV heads, kept]."""
        stored = self.cache.layers[layer]
        for name in ("keys", "values"):
            part = getattr(stored, name)
            setattr(stored, name, part.gather(2, index[None, :, :, None].expand(1, -1, -1, part.shape[-1])))
        self.positions[layer] = self.positions[layer].gather(1, index)

    def turn_keys(self, by: Sequence[int]) -> None:
        """Rotates every layer's stored keys as if token i stood by[i] positions farther on."""
        angles = torch.tensor(by)[:, None] * self.model.model.rotary_emb.inv_freq
        cos, sin = angles.cos(), angles.sin()
        for stored in self.cache.layers:
            one, two = stored.keys.chunk(2, dim=-1)
            stored.keys = torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


def pair(policy: Policy, *, seed: int = 0, prefill_tokens: int = 512) -> tuple[Engine, KVContext, Dense]:
    """An engine with a context of the policy, and the oracle, over two models of the same weights."""
    engine = Engine(tiny_llama(seed), prefill_tokens=prefill_tokens)
    return engine, engine.new_context(policy), Dense(tiny_llama(seed))


def random_ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 250, count).tolist()


def stored(context: KVContext) -> dict[tuple[int, int], list[int]]:
    """Positions of the stored tokens by (layer, KV head)."""
    return {member: track.runs.token_positions().tolist() for track in context.tracks for member in track.members}


def dense_stored(dense: Dense) -> dict[tuple[int, int], list[int]]:
    heads = range(dense.kv_heads)
    return {(layer, head): dense.positions[layer][head].tolist() for layer in range(dense.layers) for head in heads}
