"""Tokens with a hold, for kernels that know none: their queries are turned, and the results merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ctxkit_kernels.attention.interface import Gathered, Merged, merge_state
from ctxkit_kernels.attention.reference import shift_turns, turned


def with_holds(
    attend: Callable[[Tensor, Gathered], Merged], q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor
) -> Merged:
    """`chunk_attention` by an `attend` that ignores holds, called once, and once per distinct hold that takes effect.

    q: [rows, heads in a group, queries, dims]. `attend` takes queries and the tokens that they see.
    """
    places = first_position + torch.arange(q.shape[2])  # [queries]
    held = (seen.hold < places[-1]) & (seen.positions >= 0) if len(places) else torch.zeros(1, 1, dtype=torch.bool)
    if not held.any():
        return attend(q, seen)
    merged = attend(q, replace(seen, reach=torch.where(held, 0, seen.reach)))
    for hold in seen.hold.expand_as(held)[held].unique().tolist():
        beyond = (places - hold).clamp_min(0)
        turns = shift_turns(-beyond, frequencies)
        part = _only(seen, held & (seen.hold == hold))
        merged = merge_state(merged, attend(turned(q.float(), turns.cos, turns.sin), part))
    return merged


def _only(seen: Gathered, wanted: Tensor) -> Gathered:
    """The tokens that any row wants (bool [rows or 1, tokens]); out of reach of the rows that do not."""
    columns = wanted.any(0).nonzero()[:, 0]
    reach = torch.where(wanted, seen.reach, 0)
    bias = None if seen.bias is None else seen.bias[..., columns]
    tokens = (seen.keys[:, columns], seen.values[:, columns])
    return Gathered(*tokens, seen.positions[:, columns], reach[:, columns], seen.hold[:, columns], bias)
