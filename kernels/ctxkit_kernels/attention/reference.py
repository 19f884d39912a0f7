"""The attention kernels in plain torch, on any device: the other paths are tested against this one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxkit_kernels.attention.interface import Gathered, Merged, Pages, Table, Turns, merge_state

_BLOCK_QUERIES = 128
_BLOCK_KEYS = 4096


class TorchAttention:
    """Every kernel by torch. The page gather costs several times the attention itself: a fallback, and the oracle."""

    @property
    def name(self) -> str:
        return "torch"

    def paged_attention(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        logits = self.token_logits(q, pages, table, turns, scale=scale, softcap=softcap)
        values = _tokens(pages.values, pages.value_scales, table)  # [rows, runs * page, value dims]
        inside = _inside(table, pages.values.shape[1])  # what lies behind a run may be anything, also nan
        return _weighted(logits, values.masked_fill(~inside[..., None], 0))

    def token_logits(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Tensor:
        page = pages.keys.shape[1]
        keys = _tokens(pages.keys, pages.key_scales, table)  # [rows, runs * page, dims]
        cos, sin = (
            part[table.turn.long()].repeat_interleave(page, dim=1).to(q.device) for part in (turns.cos, turns.sin)
        )
        keys = turned(keys, cos, -sin)
        logits = _capped(torch.einsum("rgd,rtd->rgt", precise(q), keys) * scale, softcap)
        if table.bias is not None:
            logits = logits + table.bias.repeat_interleave(page, dim=-1)
        return logits.masked_fill(~_inside(table, page)[:, None], -math.inf)

    def gather(self, pages: Pages, table: Table, turns: Turns, length: int) -> tuple[Tensor, Tensor]:
        page = pages.keys.shape[1]
        rows = len(table.pages)
        inside = _inside(table, page).expand(rows, -1)
        order = torch.argsort((~inside).to(torch.int8), dim=1, stable=True)  # tokens first, in their order
        order = torch.nn.functional.pad(order, (0, max(0, length - order.shape[1])))[:, :length]
        there = torch.arange(length, device=order.device) < inside.sum(1, keepdim=True)  # [rows, length]
        turn = table.turn.long().repeat_interleave(page, dim=1).expand(rows, -1).gather(1, order)
        gathered = []
        for part, scales in ((pages.keys, pages.key_scales), (pages.values, pages.value_scales)):
            tokens = _tokens(part, scales, table)
            picked = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1]))
            gathered.append(picked.masked_fill(~there[..., None], 0))
        keys, values = gathered
        return turned(keys, turns.cos[turn], -turns.sin[turn]), values

    def chunk_attention(
        self, q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        blocks = []
        for start in range(0, q.shape[2], _BLOCK_QUERIES):
            some = precise(q[:, :, start : start + _BLOCK_QUERIES])
            parts = [
                _weighted(*_block(some, first_position + start, _slice(seen, at), frequencies, scale, softcap))
                for at in range(0, seen.keys.shape[1], _BLOCK_KEYS)
            ]
            merged = parts[0]
            for part in parts[1:]:
                merged = merge_state(merged, part)
            blocks.append(merged)
        return torch.cat([out for out, _ in blocks], dim=2), torch.cat([lse for _, lse in blocks], dim=2)


def turned(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`vectors` [..., dims] rotated by angles of cos and sin [..., pairs], in the half-split pairing."""
    pairs = cos.shape[-1]
    one, two, rest = vectors.split([pairs, pairs, vectors.shape[-1] - 2 * pairs], dim=-1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin, rest], dim=-1)


def shift_turns(shifts: Tensor, frequencies: Tensor) -> Turns:
    """The turns of int64 shifts [n] in float64, where angles of millions of positions are still exact to 1e-9."""
    angles = shifts.double()[:, None] * frequencies.double()
    return Turns(angles.cos().float(), angles.sin().float())


def chunk_logits(
    q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, *, scale: float, softcap: float = 0.0
) -> Tensor:
    """The logits of `chunk_attention`, float32 [rows, heads in a group, queries, tokens], all of them at once."""
    return _block(precise(q), first_position, seen, frequencies, scale, softcap)[0]


def precise(vectors: Tensor) -> Tensor:
    """As float32; float64 as it is."""
    return vectors.to(precise_dtype(vectors.dtype))


def precise_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over vectors of this type are of: float32, or float64."""
    return dtype if dtype == torch.float64 else torch.float32


def _tokens(part: Tensor, scales: Tensor | None, table: Table) -> Tensor:
    """float [rows, runs * page, dims]: each run's tokens, and whatever follows up to a page's length."""
    page = part.shape[1]
    at = table.first.long()[..., None] + torch.arange(page, device=part.device)  # [rows or 1, runs, page]
    at = at.clamp_max(page - 1).expand(len(table.pages), -1, -1)
    inside = table.count[..., None] > 0  # a padding run may name any page
    which = torch.where(inside, table.pages.long()[..., None], 0).expand_as(at)
    tokens = part[which, at].flatten(1, 2)
    tokens = precise(tokens)
    return tokens if scales is None else tokens * scales[which, at].flatten(1, 2)[..., None]


def _inside(table: Table, page: int) -> Tensor:
    """bool [rows or 1, runs * page]."""
    return (torch.arange(page, device=table.count.device) < table.count[..., None]).flatten(1, 2)


def _capped(logits: Tensor, softcap: float) -> Tensor:
    return softcap * torch.tanh(logits / softcap) if softcap > 0 else logits


def _weighted(logits: Tensor, values: Tensor) -> Merged:
    """logits [rows, groups, (queries,) tokens] over values [rows, tokens, value dims]."""
    lse = logits.logsumexp(-1)
    weights = (logits - lse.clamp_min(torch.finfo(logits.dtype).min)[..., None]).exp()
    out = weights.flatten(1, -2) @ values
    return out.reshape(*weights.shape[:-1], values.shape[-1]), lse


def _slice(seen: Gathered, at: int) -> Gathered:
    here = slice(at, at + _BLOCK_KEYS)
    bias = None if seen.bias is None else seen.bias[..., here]
    tokens = (seen.keys[:, here], seen.values[:, here])
    return Gathered(*tokens, seen.positions[:, here], seen.reach[:, here], seen.hold[:, here], bias)


def _block(
    q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, scale: float, softcap: float
) -> tuple[Tensor, Tensor]:
    """(logits [rows, groups, queries, tokens], values) of one block."""
    places = first_position + torch.arange(q.shape[2], device=q.device)  # [queries]
    logits = torch.einsum("rgtd,rkd->rgtk", q, seen.keys)
    for hold in seen.hold.unique().tolist():
        beyond = (places - hold).clamp_min(0)
        if not beyond.any():
            continue
        turns = shift_turns(-beyond, frequencies)
        held = torch.einsum("rgtd,rkd->rgtk", turned(q, turns.cos, turns.sin), seen.keys)
        logits = torch.where((seen.hold == hold)[:, None, None], held, logits)
    logits = _capped(logits * scale, softcap)
    if seen.bias is not None:
        logits = logits + seen.bias[:, :, None]
    distance = places[:, None] - seen.positions[:, None]  # [rows or 1, queries, tokens]
    visible = (distance >= 0) & (distance < seen.reach[:, None]) & (seen.positions >= 0)[:, None]
    return logits.masked_fill(~visible[:, None], -math.inf), seen.values
