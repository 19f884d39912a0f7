"""What left the reach, as one token: the mean of the keys and of the values, weighed by how many they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.adapter import AttentionCall, ModelShape
from ctxkit.models.local.paging.runs import Runs
from ctxkit.models.local.paging.track import Remainder, Track
from ctxkit_kernels.attention import Merged, merge_state, shift_turns, turned

if TYPE_CHECKING:
    from ctxkit.models.local.paging.part import Part


def absorbed(shape: ModelShape, track: Track, leaving: Runs) -> Remainder:
    """The track's remainder after it took in the tokens that are about to leave."""
    keys, values = [], []
    for layer, rows in track.rows.items():
        own, of = track.read(rows, leaving)
        keys.append(_stood(own, leaving, 0, shape.layers[layer].frequencies).double().sum(1))
        values.append(of.double().sum(1))
    before, count = track.remainder, leaving.tokens
    if before is None:
        return Remainder(torch.cat(keys), torch.cat(values), count)
    return Remainder(before.keys + torch.cat(keys), before.values + torch.cat(values), before.count + count)


def compensated(part: Part, call: AttentionCall, q: Tensor, merged: Merged, frequencies: Tensor) -> Merged:
    """`merged`, after every query also saw the mean of what it cannot reach.

    q: [rows, heads in a group, queries, dims]. What left memory is in the track's remainder; what is out of reach but
    still stored, also of this pass itself, is added query by query, so that it does not matter how a text was cut.
    """
    reach = part.context.reach(part.track)
    if reach is None:
        return merged
    ends = part.start + np.arange(part.tokens) - reach.recent + 1  # each query reaches from here on
    stored = part.track.runs.since(reach.sinks).before(int(ends[-1]))
    left = part.track.remainder
    already = 0 if left is None else left.count
    number = torch.from_numpy(np.searchsorted(stored.token_positions(), ends)).to(q.device)  # [queries]
    if already + stored.tokens == 0:
        return merged
    rows = part.track.rows[call.layer]
    keys, values = part.track.read(rows, stored)
    sums = [_running(_stood(keys, stored, part.origin, frequencies), number), _running(values, number)]
    if left is not None:
        turns = shift_turns(torch.tensor([-part.origin], device=q.device), frequencies)
        sums[0] = sums[0] + turned(left.keys[rows], turns.cos, turns.sin)[:, None]
        sums[1] = sums[1] + left.values[rows][:, None]
    count = number + already
    key, value = (total / count.clamp_min(1)[:, None] for total in sums)  # [rows, queries, dims]
    logits = torch.einsum("rgtd,rtd->rgt", q.double(), key) * call.scale
    if call.softcap > 0:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    logits = (logits + count.double().log()).to(merged[1])
    return merge_state(merged, (value[:, None].expand(*logits.shape, -1).to(merged[0]), logits))


def _stood(keys: Tensor, runs: Runs, origin: int, frequencies: Tensor | None) -> Tensor:
    """Keys [rows, tokens, dims] rotated by where they stand, counted from `origin`."""
    if frequencies is None:
        return keys
    shifts = torch.from_numpy(np.repeat(runs.origin - origin, runs.count)).to(keys.device)
    turns = shift_turns(shifts, frequencies)
    return turned(keys, turns.cos, turns.sin)


def _running(vectors: Tensor, number: Tensor) -> Tensor:
    """float64 [rows, queries, dims]: per query the sum of the first `number` vectors."""
    sums = torch.nn.functional.pad(vectors.double().cumsum(1), (0, 0, 1, 0))
    return sums[:, number]
