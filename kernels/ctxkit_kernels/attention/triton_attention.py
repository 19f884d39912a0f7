"""The attention kernels in Triton: flash decoding over pages, and flash attention of chunks.

Import this only where Triton is to run: it reads TRITON_INTERPRET when the kernels are made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ctxkit_kernels.attention.interface import Gathered, Merged, Pages, Table, Turns
from ctxkit_kernels.attention.triton_chunk import Chunk
from ctxkit_kernels.attention.triton_paged import LOG2E, block_of, gather_kernel, merge_kernel, paged_kernel
from ctxkit_kernels.triton_maxsim import launching_on

_LEAST = 16  # of each side of a product in the matrix units
_MOST_ROWS = 64  # heads and runs of a step: registers hold them and their sums
_STEP_BYTES = 1 << 15  # of keys and values; shared memory holds as many steps as the pipeline has in flight
_LEAST_BLOCKS = 2  # of a partition: merging costs too
_GATHERED = 64  # tokens of a program
_MERGED_PARTS, _MERGED_VALUES = 32, 32
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


@dataclass(frozen=True)
class Tuning:
    """How the decoding kernel is cut up.

    block_tokens: of one step of a program; a power of two, at least 16. warps: of a program. stages: of its software
    pipeline. programs: for each multiprocessor, among which all rows' runs are split.
    """

    block_tokens: int = 64
    warps: int = 4
    stages: int = 5
    programs: int = 4


@dataclass(frozen=True)
class TritonAttention:
    """The kernels of `triton_paged` and `triton_chunk`, on CUDA; under TRITON_INTERPRET=1 on the CPU, very slowly.

    Over pages, products are of the pages' type (of bfloat16 for int8) and summed in float32; queries keep twice its
    bits, weights are rounded to it. float32 is multiplied as such, without the matrix units. Over a chunk, products are
    of q's type: where that has 16 bits, keys and values are rounded to it; float32 is split in three parts for them.

    `paged_attention` and `token_logits` never wait for the device, and can be captured in a CUDA graph. Block sizes are
    chosen by what the compiler makes of them, and not yet tuned on a card.
    """

    tuning: Tuning = Tuning()

    @property
    def name(self) -> str:
        return "triton"

    def paged_attention(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        rows, group, _ = q.shape
        work = _Paged(q, pages, table, turns, self.tuning)
        out = q.new_empty((work.partitions, rows, group, pages.values.shape[2]), dtype=torch.float32)
        lse = q.new_empty((work.partitions, rows, group), dtype=torch.float32)
        work.launch(out, lse, scale, softcap)
        return _merged(out, lse)

    def token_logits(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Tensor:
        rows, group, _ = q.shape
        out = q.new_empty((rows, group, table.pages.shape[1] * pages.keys.shape[1]), dtype=torch.float32)
        _Paged(q, pages, table, turns, self.tuning).launch(out, None, scale, softcap)
        return out

    def gather(self, pages: Pages, table: Table, turns: Turns, length: int) -> tuple[Tensor, Tensor]:
        rows, runs = table.pages.shape
        (page, dims), values = pages.keys.shape[1:], pages.values.shape[2]
        keys_out = pages.keys.new_zeros((rows, length, dims), dtype=torch.float32)
        values_out = pages.values.new_zeros((rows, length, values), dtype=torch.float32)
        if 0 in (rows, runs, length):
            return keys_out, values_out
        span = min(_GATHERED, block_of(page))
        parts = triton.cdiv(page, span)
        ends = table.count.cumsum(1)  # its rows are those of `count`
        with launching_on(keys_out):
            gather_kernel[(runs * parts, rows)](
                *_stored(pages), *_listed(table), ends, turns.cos.contiguous(), turns.sin.contiguous(),
                keys_out, values_out, runs, length, *_row_strides(table), *_page_strides(pages),
                PAGE=page, SCALED=pages.key_scales is not None, SPAN=span, PARTS=parts, **_sizes(pages, turns),
            )  # fmt: skip
        return keys_out, values_out

    def chunk_attention(
        self, q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        rows, group, queries, _ = q.shape
        if not q.numel() or not seen.keys.shape[1]:
            shape = (rows, group, queries)
            return seen.values.new_zeros((*shape, seen.values.shape[2])), seen.values.new_full(shape, -math.inf)
        work = Chunk.prepared(q, first_position, seen, frequencies)
        partitions, blocks_each = _split(work.blocks, rows * work.row_blocks, q.device, programs=2)
        out = q.new_empty((partitions, rows, group * queries, seen.values.shape[2]), dtype=torch.float32)
        lse = out.new_empty(out.shape[:3])
        with launching_on(q):
            work.launch(out, lse, blocks_each, scale, softcap)
        out, lse = _merged(out, lse)
        return out.unflatten(1, (group, queries)), lse.unflatten(1, (group, queries))


class _Paged:
    """One launch of the decoding kernel, cut up for the tensors at hand by their shapes alone."""

    def __init__(self, q: Tensor, pages: Pages, table: Table, turns: Turns, tuning: Tuning) -> None:
        (self._q, self._pages, self._table, self._turns), self._tuning = (q.contiguous(), pages, table, turns), tuning
        (rows, group, _), runs, page = q.shape, table.pages.shape[1], pages.keys.shape[1]
        heads, token_bytes = triton.next_power_of_2(group), pages.keys[:1, :1].nbytes + pages.values[:1, :1].nbytes
        fitting = 1 << (_STEP_BYTES // token_bytes).bit_length() >> 1
        tokens = max(_LEAST, min(tuning.block_tokens, fitting))
        self._span = min(tokens, block_of(page))
        self._runs = min(tokens // self._span, max(1, _MOST_ROWS // heads))
        self._rows = self._runs * max(heads, _LEAST // self._runs)
        self._parts = triton.cdiv(page, self._span)
        self._blocks = triton.cdiv(runs, self._runs) * self._parts
        self.partitions, self._blocks_each = _split(self._blocks, rows, q.device, tuning.programs)

    def launch(self, out: Tensor, lse: Tensor | None, scale: float, softcap: float) -> None:
        """`out` [partitions, rows, heads, value dims] and `lse`, or without `lse` the logits."""
        q, pages, table, turns = self._q, self._pages, self._table, self._turns
        if not out.numel():
            return
        runs, bias = table.pages.shape[1], table.bias
        bias_row = 0 if bias is None or len(bias) == 1 else bias.shape[1] * runs
        numbers = (runs, self._blocks, self._blocks_each, *_row_strides(table), bias_row)
        factors = (scale / softcap, softcap * LOG2E.value) if softcap > 0 else (scale * LOG2E.value, 0.0)
        with launching_on(q):
            paged_kernel[(len(q), self.partitions)](
                q, *_stored(pages), *_listed(table), q if bias is None else bias.contiguous(), turns.cos.contiguous(),
                turns.sin.contiguous(), out, out if lse is None else lse, *numbers, *_page_strides(pages), *factors,
                WEIGHED=lse is not None, GROUP=q.shape[1], PAGE=pages.keys.shape[1],
                BIASES=0 if bias is None else bias.shape[1], SCALED=pages.key_scales is not None, CAPPED=softcap > 0,
                RUNS=self._runs, SPAN=self._span, PARTS=self._parts, ROWS=self._rows, **_sizes(pages, turns),
                num_warps=self._tuning.warps, num_stages=self._tuning.stages,
            )  # fmt: skip


def _merged(out: Tensor, lse: Tensor) -> Merged:
    """[partitions, rows, queries, value dims] and lse as one partition."""
    partitions, rows, queries, values = out.shape
    if partitions == 1 or not out.numel():
        return out[0], lse[0]
    merged, merged_lse = out.new_empty(out.shape[1:]), lse.new_empty(lse.shape[1:])
    with launching_on(out):
        merge_kernel[(rows * queries, triton.cdiv(values, _MERGED_VALUES))](
            out, lse, merged, merged_lse, partitions, values, _MERGED_PARTS, _MERGED_VALUES
        )
    return merged, merged_lse


def _split(blocks: int, others: int, device: torch.device, programs: int) -> tuple[int, int]:
    """(partitions, blocks of each), so that with `others` programs beside, each multiprocessor has `programs`."""
    most = max(1, programs * _processors(device) // max(1, others))
    each = max(_LEAST_BLOCKS, triton.cdiv(blocks, most), 1)
    return max(1, triton.cdiv(blocks, each)), each


def _processors(device: torch.device) -> int:
    """Multiprocessors; of the interpreter as many as let a test see several partitions."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def _stored(pages: Pages) -> list[Tensor]:
    """Keys, values and scales; where there are none, something in their place."""
    for name, part in (("keys", pages.keys), ("values", pages.values)):
        if part.dtype not in _TYPES:
            raise ValueError(f"`{name}` of pages must be float32, float16, bfloat16 or int8, got {part.dtype}")
    scales = (pages.key_scales, pages.value_scales)
    parts = [pages.keys, pages.values, *(pages.keys if scale is None else scale for scale in scales)]
    if not all(part[:1].is_contiguous() for part in parts):
        raise ValueError("each page must be in one piece, its tokens one after the other")
    return parts


def _listed(table: Table) -> list[Tensor]:
    return [part.contiguous() for part in (table.pages, table.first, table.count, table.turn)]


def _row_strides(table: Table) -> list[int]:
    """Of first, count and turn: from one row to the next, or 0 where one serves all."""
    return [0 if len(part) == 1 else part.shape[1] for part in (table.first, table.count, table.turn)]


def _page_strides(pages: Pages) -> tuple[int, int, int, int]:
    """From one page to the next, of `_stored`."""
    keys, values, *scales = (part.stride(0) for part in pages)
    key_scales, value_scales = scales or (0, 0)
    return keys, values, key_scales, value_scales


def _sizes(pages: Pages, turns: Turns) -> dict[str, int]:
    """Dimensions, in how many pairs they turn, and the blocks that hold them. One turn alone is none: row 0."""
    dims, values = pages.keys.shape[2], pages.values.shape[2]
    pairs = turns.cos.shape[1] if len(turns.cos) > 1 else 0
    sizes = {"PAIRS": pairs, "REST": dims - 2 * pairs, "VALUES": values}
    return sizes | {f"BLOCK_{name}": block_of(size) for name, size in sizes.items()}
