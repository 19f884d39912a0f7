"""What the golden tests of selections share: transformers' own keys and attention, and what a policy chose."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.look import Look
from ctxkit.models.local.policies.base import Policy
from ctxkit.testing import tiny_llama

KV_HEADS, GROUP, DIMS = 2, 2, 16


@dataclass(frozen=True)
class Chosen:
    """q: [KV heads, heads in a group, queries, dims], as the model rotated them. tokens: positions per row, or None."""

    layer: int
    first_query: int
    q: Tensor
    tokens: list[list[int]] | None


P = TypeVar("P", bound=Policy)


def spied(policy: P) -> tuple[P, list[Chosen]]:
    """The same policy, and a list in which every choice is written down."""
    notes: list[Chosen] = []
    kind: Any = type(policy)

    class Spied(kind):  # type: ignore[misc]
        def select(self, look: Look) -> Tensor | None:
            chosen = super().select(look)
            shown = None if chosen is None else [look.positions[row[row >= 0]].tolist() for row in chosen.numpy()]
            q = look.call.query[0].view(KV_HEADS, GROUP, -1, DIMS)
            notes.append(Chosen(look.layer, look.first_query, q, shown))
            return chosen

    values: dict[str, Any] = {of.name: getattr(policy, of.name) for of in fields(kind)}
    return Spied(**values), notes


def tiny_engine(prefill_tokens: int = 4096) -> Engine:
    return Engine(tiny_llama(), prefill_tokens=prefill_tokens)


def some_ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(3, 270, count).tolist()


def started(engine: Engine, policy: Policy, ids: list[int]) -> KVContext:
    """A context that has read `ids`."""
    context = engine.new_context(policy)
    engine.prefill(ids, context)
    return context


def keys_of(engine: Engine, ids: list[int]) -> list[Tensor]:
    """Per layer, [KV heads, tokens, dims], rotated; by transformers, in one pass with full attention."""
    cache = DynamicCache()
    engine.model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        engine.model(torch.tensor([ids]), past_key_values=cache)
    return [layer.keys[0] for layer in cache.layers]  # type: ignore[union-attr]


def attention_of(engine: Engine, ids: list[int]) -> list[Tensor]:
    """Per layer, [KV heads, heads in a group, queries, tokens]; by transformers."""
    engine.model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = engine.model(torch.tensor([ids]), output_attentions=True, use_cache=False)
    return [one[0].view(KV_HEADS, GROUP, len(ids), len(ids)) for one in output.attentions]


def turned(vectors: Tensor, positions: Any) -> Tensor:
    """Vectors [..., n, dims] rotated by `positions` [n] more, as complex numbers."""
    frequencies = 10000.0 ** -(torch.arange(DIMS // 2) / (DIMS // 2))
    angles = torch.as_tensor(positions)[..., None] * frequencies
    paired = torch.complex(vectors[..., : DIMS // 2], vectors[..., DIMS // 2 :])
    result = paired * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([result.real, result.imag], dim=-1)


def top(scores: Tensor, count: int) -> list[int]:
    return sorted(scores.argsort(descending=True)[:count].tolist())
