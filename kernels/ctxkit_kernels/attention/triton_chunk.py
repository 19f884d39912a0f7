"""Attention of many queries over gathered tokens, in Triton: blocks of queries of all heads of a group, online softmax.

Which queries see a token is a span of them, reckoned beforehand. Tokens that are held (see `Gathered.hold`) want the
query turned otherwise: each distinct position of holding has a variant of the queries, and a block of tokens is visited
once for each variant that occurs in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctxkit_kernels.attention.interface import Gathered
from ctxkit_kernels.attention.reference import shift_turns, turned
from ctxkit_kernels.attention.triton_paged import LN2, LOG2E, block_of, capped, columns, kernel, multiplied, softened

_FAR = 1 << 40  # a reach beyond every distance, and far from overflow


# fmt: off
@kernel
def chunk_kernel(  # type: ignore[no-untyped-def]
    q: tl.tensor, keys: tl.tensor, values: tl.tensor, start: tl.tensor, stop: tl.tensor, variant: tl.tensor,
    items: tl.tensor, bias: tl.tensor, out: tl.tensor, lse: tl.tensor, tokens: tl.tensor, queries: tl.tensor,
    length: tl.tensor, blocks: tl.tensor, blocks_each: tl.tensor, span_row: tl.tensor, bias_row: tl.tensor,
    factor: tl.tensor, cap: tl.tensor, HELD: tl.constexpr, DIMS: tl.constexpr, VALUES: tl.constexpr,
    BIASES: tl.constexpr, CAPPED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_DIMS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):  # fmt: on
    """`out` and `lse` of each partition of the blocks. `length` queries of each head: `queries` rows of a group."""
    group, groups = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    place, head = row % length, row // length
    asked = columns(q + (group * queries + row) * DIMS, row < queries, DIMS, BLOCK_DIMS)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, BLOCK_VALUES], tl.float32)
    first = tl.program_id(2) * blocks_each
    for item in range(first, tl.minimum(first + blocks_each, blocks)):
        block, own = item, 0
        if HELD:
            block, own = tl.load(items + 2 * item), tl.load(items + 2 * item + 1)
            asked = columns(q + ((own * groups + group) * queries + row) * DIMS, row < queries, DIMS, BLOCK_DIMS)
        token = block * BLOCK + tl.arange(0, BLOCK)
        inside = token < tokens
        key = columns(keys + (group * tokens + token) * DIMS, inside, DIMS, BLOCK_DIMS)
        logits = multiplied(asked, tl.trans(key), tl.zeros([ROWS, BLOCK], tl.float32), "tf32x3") * factor
        if CAPPED:
            logits = capped(logits, cap)
        if BIASES > 0:
            at = bias + group * bias_row + (head % BIASES)[:, None] * tokens + token[None, :]
            logits += tl.load(at, mask=inside[None, :], other=0.0) * LOG2E
        since = tl.load(start + group * span_row + token, mask=inside, other=0)
        until = tl.load(stop + group * span_row + token, mask=inside, other=0)
        if HELD:
            until = tl.where(tl.load(variant + group * span_row + token, mask=inside, other=-1) == own, until, 0)
        seen = (place[:, None] >= since[None, :]) & (place[:, None] < until[None, :])
        weights, fade, best, total = softened(tl.where(seen, logits, float("-inf")), best, total)
        value = columns(values + (group * tokens + token) * VALUES, inside, VALUES, BLOCK_VALUES)
        sums = multiplied(weights.to(value.dtype), value, sums * fade[:, None], "tf32x3")
    to = (tl.program_id(2) * groups + group) * queries + row
    column = tl.arange(0, BLOCK_VALUES)
    mean = sums / tl.maximum(total, 1.0)[:, None]  # of what sees a token, the best weighs 1
    mask = (row < queries)[:, None] & (column < VALUES)[None, :]
    tl.store(out + to[:, None] * VALUES + column[None, :], mean, mask=mask)
    tl.store(lse + to, (best + tl.log2(total)) * LN2, mask=row < queries)


class Tile(NamedTuple):
    """Rows and tokens of one step of a program, its warps, and the stages of its software pipeline."""

    rows: int
    tokens: int
    warps: int
    stages: int

    @classmethod
    def of(cls, q: Tensor) -> Tile:
        """For q [.., heads in a group, queries, dims]: what fits the registers and 160 KiB of shared memory."""
        rows, (narrow, dims) = block_of(q.shape[-3] * q.shape[-2]), (q.element_size() == 2, q.shape[-1])
        if narrow and dims <= 128 and rows > 64:
            return cls(128, 64, 8, 3)
        return cls(min(rows, 64), (64 if narrow else 32) if dims <= 128 else 32 if narrow else 16, 4, 2)


@dataclass(frozen=True)
class Chunk:
    """One launch of the kernel above.

    q: [variants, rows, heads in a group, queries, dims], the first as they came, the others as held tokens want them.
    start, stop, variant: int32 [rows or 1, tokens]; queries start .. stop - 1 see a token, in that variant.
    items: int32 [items, 2], a block of tokens and a variant that occurs in it; None where there is one variant.
    """

    q: Tensor
    keys: Tensor
    values: Tensor
    start: Tensor
    stop: Tensor
    variant: Tensor
    items: Tensor | None
    bias: Tensor | None
    tile: Tile

    @classmethod
    def prepared(cls, q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor) -> Chunk:
        """Waits for the device where tokens are held: how many variants there are, decides about the launch."""
        queries, kind = q.shape[2], q.dtype if q.dtype in (torch.float16, torch.bfloat16) else torch.float32
        before = seen.positions - first_position
        start, stop = before.clamp(0, queries), (before + seen.reach.clamp(0, _FAR)).clamp(0, queries)
        stop = torch.where(seen.positions >= 0, stop, 0)
        held = seen.hold < first_position + queries - 1
        holds = seen.hold[held].unique() if len(frequencies) else seen.hold.new_empty(0)
        variant = torch.where(held, torch.searchsorted(holds, seen.hold.contiguous()) + 1, 0)
        variant = variant if len(holds) else torch.zeros_like(variant)
        start, stop, variant = (part.int().contiguous() for part in torch.broadcast_tensors(start, stop, variant))
        whole = _variants(q.to(kind), first_position, holds, frequencies)
        tile = Tile.of(whole)
        items = _items(variant, len(holds) + 1, tile.tokens) if len(holds) else None
        keys, values = seen.keys.to(kind).contiguous(), seen.values.to(kind).contiguous()
        bias = None if seen.bias is None else seen.bias.contiguous()
        return cls(whole, keys, values, start, stop, variant, items, bias, tile)

    @property
    def blocks(self) -> int:
        """Steps of a program that takes all tokens."""
        return triton.cdiv(self.keys.shape[1], self.tile.tokens) if self.items is None else len(self.items)

    @property
    def row_blocks(self) -> int:
        """Programs for each KV head."""
        return triton.cdiv(self.q.shape[2] * self.q.shape[3], self.tile.rows)

    def launch(self, out: Tensor, lse: Tensor, blocks_each: int, scale: float, softcap: float) -> None:
        """`out` [partitions, rows, heads in a group * queries, value dims] and `lse`."""
        _, rows, group, length, dims = self.q.shape
        tokens, values, bias = self.keys.shape[1], self.values.shape[2], self.bias
        bias_row = 0 if bias is None or len(bias) == 1 else bias.shape[1] * tokens
        factors = (scale / softcap, softcap * LOG2E.value) if softcap > 0 else (scale * LOG2E.value, 0.0)
        chunk_kernel[(self.row_blocks, rows, len(out))](
            self.q, self.keys, self.values, self.start, self.stop, self.variant,
            self.start if self.items is None else self.items, self.q if bias is None else bias, out, lse,
            tokens, group * length, length, self.blocks, blocks_each, 0 if len(self.start) == 1 else tokens, bias_row,
            *factors, HELD=self.items is not None, DIMS=dims, VALUES=values, CAPPED=softcap > 0,
            BIASES=0 if bias is None else bias.shape[1], ROWS=self.tile.rows, BLOCK=self.tile.tokens,
            BLOCK_DIMS=block_of(dims), BLOCK_VALUES=block_of(values),
            num_warps=self.tile.warps, num_stages=self.tile.stages,
        )  # fmt: skip


def _variants(q: Tensor, first_position: int, holds: Tensor, frequencies: Tensor) -> Tensor:
    places = first_position + torch.arange(q.shape[2], device=q.device)
    found = [q]
    for hold in holds:
        turns = shift_turns((hold - places).clamp_max(0), frequencies)
        found.append(turned(q.float(), turns.cos, turns.sin).to(q.dtype))
    return torch.stack(found)


def _items(variant: Tensor, number: int, tokens: int) -> Tensor:
    """int32 [items, 2], for the tokens of any row; variant by variant."""
    padded = torch.nn.functional.pad(variant, (0, -variant.shape[1] % tokens), value=-1)
    blocks = padded.unflatten(1, (-1, tokens))
    found = torch.stack([(blocks == own).any(2).any(0) for own in range(number)])  # [variants, blocks]
    return found.nonzero().flip(1).int().contiguous()
