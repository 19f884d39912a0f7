"""Two groups of tokens weighed anew: one group's probability is multiplied, the other takes what that frees."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.adapter import AttentionCall
from ctxkit.models.local.paging.part import Part
from ctxkit.models.local.policies.base import View
from ctxkit_kernels.attention import AttentionKernels, Gathered, Merged


def regrouped(
    part: Part,
    views: list[View],
    call: AttentionCall,
    q: Tensor,
    merged: Merged,
    kernels: AttentionKernels,
    frequencies: Tensor,
) -> Merged:
    """`merged` with the shares of the policy's two groups; as it is where the policy has nothing to regroup.

    Each group's attention is computed apart, over the same gathered tokens: exact also where one group has it all.
    """
    gathered = part.gathered(views, call.layer, kernels, frequencies)
    found = _groups(part, call.layer, gathered, len(q))
    if found is None:
        return merged
    chosen, factor = found
    how: dict[str, Any] = {"scale": call.scale, "softcap": call.softcap}
    (one, lse_one), (other, lse_other) = (
        kernels.chunk_attention(q, part.start, _only(gathered, group), frequencies, **how)
        for group in (chosen, ~chosen)
    )
    share = (torch.sigmoid(lse_one - lse_other) * factor).clamp_max(1)
    share = share.masked_fill(lse_one == -math.inf, 0).masked_fill(lse_other == -math.inf, 1)[..., None]
    return share * one + (1 - share) * other, merged[1]


def _groups(part: Part, layer: int, gathered: Gathered, rows: int) -> tuple[Tensor, float] | None:
    """(bool [rows, tokens], factor)."""
    track = part.track
    if track.scores is None:
        return None
    positions = gathered.positions.cpu().numpy()
    positions = np.broadcast_to(positions, (rows, positions.shape[1]))
    at = np.searchsorted(track.runs.token_positions(), positions)
    scores = np.take_along_axis(track.scores[track.rows[layer]], at, axis=1)
    found = part.policy.regroup(layer, part.heads(layer), positions, scores)
    if found is None or not found[0].any():
        return None
    return torch.from_numpy(found[0]).to(gathered.keys.device), found[1]


def _only(gathered: Gathered, group: Tensor) -> Gathered:
    return replace(gathered, reach=torch.where(group, gathered.reach, 0))
