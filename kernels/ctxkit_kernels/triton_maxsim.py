"""The kernels of an accelerator in Triton: decoding and MaxSim in one pass, nothing decoded is ever written.

One program scores one document for one query, all in registers: it walks the document's tokens in blocks and keeps the
best of each lane, so documents of any length need no padding. Products are of float16 (int8 levels and rows are exact
in it), summed in float32 by the matrix units.

Import this only where Triton is to run: it reads TRITON_INTERPRET when the kernels are made.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctxkit_kernels.device import DeviceRows, DeviceTokens, QueryBatch

BLOCK_TOKENS = 64
_LEAST = 16  # of each side of a product in the matrix units
_MOST_LANES = 64
_MOST_COLUMNS = 64
_MOST_QUERIES = 65_535  # the second side of a grid

_UNLIKE = ["document_stride", "centroids"]  # differ from search to search: not worth a compilation for each kind
_kernel = cast(Callable[[Any], Any], triton.jit(do_not_specialize=_UNLIKE))


@_kernel
def _document(documents: tl.tensor, stride: tl.tensor, offsets: tl.tensor):  # type: ignore[no-untyped-def]
    """This program's query, where its result belongs, and the document's first and last token."""
    query = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0)
    document = tl.load(documents + query * stride + place).to(tl.int64)
    return query, query * tl.num_programs(0) + place, tl.load(offsets + document), tl.load(offsets + document + 1)


@_kernel
def _better(scores: tl.tensor, inside: tl.tensor, start: tl.tensor, best: tl.tensor, winners: tl.tensor):  # type: ignore[no-untyped-def]
    """The best of each lane after one more block of tokens, and which token that is; of equal ones the first."""
    peaks, at = tl.max(tl.where(inside[:, None], scores, float("-inf")), axis=0, return_indices=True)
    won = peaks > best
    return tl.where(won, peaks, best), tl.where(won, start.to(tl.int32) + at, winners)


@_kernel
def coarse_kernel(  # type: ignore[no-untyped-def]
    table: tl.tensor,
    counts: tl.tensor,
    documents: tl.tensor,
    offsets: tl.tensor,
    codes: tl.tensor,
    out: tl.tensor,
    document_stride: tl.tensor,
    centroids: tl.tensor,
    lanes: tl.tensor,
    BLOCK_T: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    query, result, first, last = _document(documents, document_stride, offsets)
    own = tl.load(counts + query)
    total = 0.0
    for lane in range(0, own, BLOCK_L):
        columns = lane + tl.arange(0, BLOCK_L)
        best = tl.full([BLOCK_L], float("-inf"), tl.float32)
        for start in range(first, last, BLOCK_T):
            rows = start + tl.arange(0, BLOCK_T)
            near = tl.load(codes + rows, mask=rows < last, other=0).to(tl.int64)
            scores = tl.load(
                table + (query * centroids + near[:, None]) * lanes + columns[None, :],
                mask=(rows < last)[:, None] & (columns < own)[None, :],
                other=float("-inf"),
            )
            best = tl.maximum(best, tl.max(scores.to(tl.float32), axis=0))
        total += tl.sum(tl.where((columns < own) & (first < last), best, 0.0), axis=0)
    tl.store(out + result, total)


@_kernel
def rerank_kernel(  # type: ignore[no-untyped-def]
    table: tl.tensor,
    queries: tl.tensor,
    counts: tl.tensor,
    documents: tl.tensor,
    offsets: tl.tensor,
    codes: tl.tensor,
    residuals: tl.tensor,
    norms: tl.tensor,
    levels: tl.tensor,
    out: tl.tensor,
    evidence: tl.tensor,
    document_stride: tl.tensor,
    centroids: tl.tensor,
    lanes: tl.tensor,
    dims: tl.tensor,
    near_unit: tl.tensor,
    far_unit: tl.tensor,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    EVIDENCE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    query, result, first, last = _document(documents, document_stride, offsets)
    own = tl.load(counts + query)
    total = 0.0
    for lane in range(0, own, BLOCK_L):
        columns = lane + tl.arange(0, BLOCK_L)
        best = tl.full([BLOCK_L], float("-inf"), tl.float32)
        winners = tl.full([BLOCK_L], -1, tl.int32)
        for start in range(first, last, BLOCK_T):
            rows = start + tl.arange(0, BLOCK_T)
            inside = rows < last
            far = tl.zeros([BLOCK_T, BLOCK_L], tl.float32)
            for column in tl.static_range(0, WIDTH, BLOCK_W):
                places = column + tl.arange(0, BLOCK_W)
                packed = tl.load(
                    residuals + rows[:, None] * WIDTH + places[None, :],
                    mask=inside[:, None] & (places < WIDTH)[None, :],
                    other=0,
                ).to(tl.int32)
                for part in tl.static_range(8 // BITS):
                    level = tl.load(levels + ((packed >> (part * BITS)) & ((1 << BITS) - 1)))
                    at = part * WIDTH + places
                    values = tl.load(
                        queries + (query * lanes + columns[None, :]) * dims + at[:, None],
                        mask=(columns < own)[None, :] & ((places < WIDTH) & (at < dims))[:, None],
                        other=0.0,
                    )
                    far = tl.dot(level.to(values.dtype), values, far)
            near = tl.load(codes + rows, mask=inside, other=0).to(tl.int64)
            scores = tl.load(
                table + (query * centroids + near[:, None]) * lanes + columns[None, :],
                mask=inside[:, None] & (columns < own)[None, :],
                other=0.0,
            )
            norm = tl.load(norms + rows, mask=inside, other=0.0).to(tl.float32)
            whole = (scores.to(tl.float32) * near_unit + far * far_unit) * norm[:, None]
            best, winners = _better(whole, inside, start - first, best, winners)
        total += tl.sum(tl.where((columns < own) & (first < last), best, 0.0), axis=0)
        if EVIDENCE:
            tl.store(evidence + result * lanes + columns, winners, mask=columns < own)
    tl.store(out + result, total)


@_kernel
def scan_kernel(  # type: ignore[no-untyped-def]
    queries: tl.tensor,
    counts: tl.tensor,
    documents: tl.tensor,
    offsets: tl.tensor,
    values: tl.tensor,
    scales: tl.tensor,
    out: tl.tensor,
    evidence: tl.tensor,
    document_stride: tl.tensor,
    lanes: tl.tensor,
    dims: tl.tensor,
    WIDTH: tl.constexpr,
    EVIDENCE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    query, result, first, last = _document(documents, document_stride, offsets)
    own = tl.load(counts + query)
    total = 0.0
    for lane in range(0, own, BLOCK_L):
        columns = lane + tl.arange(0, BLOCK_L)
        best = tl.full([BLOCK_L], float("-inf"), tl.float32)
        winners = tl.full([BLOCK_L], -1, tl.int32)
        for start in range(first, last, BLOCK_T):
            rows = start + tl.arange(0, BLOCK_T)
            inside = rows < last
            products = tl.zeros([BLOCK_T, BLOCK_L], tl.float32)
            for column in tl.static_range(0, WIDTH, BLOCK_W):
                places = column + tl.arange(0, BLOCK_W)
                row = tl.load(
                    values + rows[:, None] * WIDTH + places[None, :],
                    mask=inside[:, None] & (places < WIDTH)[None, :],
                    other=0,
                )
                asked = tl.load(
                    queries + (query * lanes + columns[None, :]) * dims + places[:, None],
                    mask=(columns < own)[None, :] & (places < dims)[:, None],
                    other=0.0,
                )
                products = tl.dot(row.to(asked.dtype), asked, products)
            scale = tl.load(scales + rows, mask=inside, other=0.0)
            best, winners = _better(products * scale[:, None], inside, start - first, best, winners)
        total += tl.sum(tl.where((columns < own) & (first < last), best, 0.0), axis=0)
        if EVIDENCE:
            tl.store(evidence + result * lanes + columns, winners, mask=columns < own)
    tl.store(out + result, total)


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels of this process, on the CPU."""
    return not isinstance(rerank_kernel, triton.JITFunction)


class TritonKernels:
    """The kernels above, on CUDA; under TRITON_INTERPRET=1 on the CPU, very slowly. Lanes must be of 16 bits.

    Block sizes are chosen by what the matrix units need and not yet tuned on a card.
    """

    @property
    def name(self) -> str:
        return "triton"

    def coarse(self, table: Tensor, counts: Tensor, documents: Tensor, tokens: DeviceTokens) -> Tensor:
        _, centroids, lanes = table.shape
        out = torch.empty(documents.shape, dtype=torch.float32, device=documents.device)
        documents = _by_rows(documents)
        inputs = (_whole(table), _whole(counts), documents, tokens.offsets, tokens.codes)
        with launching_on(out):
            _launch(coarse_kernel, out)(
                *inputs, out, documents.stride(0), centroids, lanes, BLOCK_T=BLOCK_TOKENS, BLOCK_L=_block(lanes)
            )
        return out

    def rerank(
        self,
        table: Tensor,
        queries: QueryBatch,
        units: tuple[float, float],
        documents: Tensor,
        tokens: DeviceTokens,
        *,
        evidence: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        _, lanes, dims = _checked(queries).shape
        width = tokens.residuals.shape[1]
        documents = _by_rows(documents)
        out, winners = _results(documents, lanes, evidence)
        inputs = (_whole(table), _whole(queries.lanes), _whole(queries.counts), documents, tokens.offsets)
        arrays = (tokens.codes, tokens.residuals, tokens.norms, tokens.levels)
        numbers = (documents.stride(0), table.shape[1], lanes, dims, *units, width, tokens.bits, evidence)
        with launching_on(out):
            _launch(rerank_kernel, out)(*inputs, *arrays, out, winners, *numbers, **_blocks(lanes, width))
        return out, winners if evidence else None

    def scan(
        self, queries: QueryBatch, documents: Tensor, rows: DeviceRows, *, evidence: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        _, lanes, dims = _checked(queries).shape
        width = rows.rows.shape[1]
        documents = _by_rows(documents)
        out, winners = _results(documents, lanes, evidence)
        inputs = (_whole(queries.lanes), _whole(queries.counts), documents, rows.offsets)
        numbers = (documents.stride(0), lanes, dims, width, evidence)
        with launching_on(out):
            _launch(scan_kernel, out)(*inputs, rows.rows, rows.scales, out, winners, *numbers, **_blocks(lanes, width))
        return out, winners if evidence else None


def _launch(kernel: Any, out: Tensor) -> Callable[..., object]:
    """The kernel, once for each [queries, documents] of `out`."""
    queries, documents = out.shape
    if queries > _MOST_QUERIES:
        raise ValueError(f"one launch takes up to {_MOST_QUERIES} queries, got {queries}")
    return cast(Callable[..., object], kernel[(documents, queries)]) if out.numel() else lambda *_, **__: None


def launching_on(values: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whichever its arguments are on."""
    return torch.cuda.device(values.device) if values.is_cuda else nullcontext()


def _results(documents: Tensor, lanes: int, evidence: bool) -> tuple[Tensor, Tensor]:
    shape = (*documents.shape, lanes) if evidence else (1,)
    winners = torch.full(shape, -1, dtype=torch.int32, device=documents.device)
    return torch.empty(documents.shape, dtype=torch.float32, device=documents.device), winners


def _checked(queries: QueryBatch) -> Tensor:
    if queries.lanes.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"`queries.lanes` must be of 16 bits for the matrix units, got {queries.lanes.dtype}")
    return queries.lanes


def _whole(values: Tensor) -> Tensor:
    """In one piece, as the kernels count places."""
    return values.contiguous()


def _by_rows(documents: Tensor) -> Tensor:
    """Each row in one piece; the rows may be one and the same, which `contiguous` would write out."""
    return documents if documents.stride(-1) == 1 or documents.shape[-1] <= 1 else documents.contiguous()


def _block(size: int, most: int = _MOST_LANES) -> int:
    return min(most, max(_LEAST, int(triton.next_power_of_2(size))))


def _blocks(lanes: int, width: int) -> dict[str, int]:
    return {"BLOCK_T": BLOCK_TOKENS, "BLOCK_L": _block(lanes), "BLOCK_W": _block(width, _MOST_COLUMNS)}
