"""Attention through the C++ library, by ctypes. One object per instruction set; tensors go by address, uncopied."""

from __future__ import annotations

import ctypes
from array import array
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctxkit_kernels.attention.held import with_holds
from ctxkit_kernels.attention.interface import Gathered, Merged, Pages, Table, Turns
from ctxkit_kernels.native import NativePath, bind

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
_SIGNATURES: dict[str, list[Any]] = {
    "path_available": [c_int],
    "attend": [c_int, c_void_p, c_float, c_float, c_int, c_void_p, c_void_p],
    "logits": [c_int, c_void_p, c_float, c_float, c_int, c_void_p],
    "gather": [c_int, c_void_p, c_int64, c_int, c_void_p, c_void_p],
    "chunk": [c_int, c_void_p, c_float, c_float, c_int, c_void_p, c_void_p],
    "stream": [c_int, c_void_p, c_int64, c_int, c_void_p],
}


@cache
def load(library: Path) -> ctypes.CDLL:
    """The library with the signatures of the attention kernels. Raises OSError where the system cannot load it."""
    return bind(library, _SIGNATURES)


class NativeAttention(NativePath):
    """The kernels of attention. All tensors are on the CPU.

    Pages may be a view with gaps between pages (one layer of a pool), but each page is contiguous. Raises ValueError
    where it is not, and IndexError where a table names a page, a token or a turn that is not there.
    """

    def _load(self, library: Path) -> ctypes.CDLL:
        return load(library)

    def paged_attention(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        rows, heads, _ = q.shape
        call = _Call(q, pages, table, turns)
        out, lse = torch.empty(rows, heads, pages.values.shape[2]), torch.empty(rows, heads)
        of = (self._path, call.layout, scale, softcap, torch.get_num_threads())
        _check(self._library.ctxkit_attend(*of, out.data_ptr(), lse.data_ptr()))
        return out, lse

    def token_logits(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Tensor:
        call = _Call(q, pages, table, turns)
        out = torch.empty(*q.shape[:2], table.pages.shape[1] * pages.keys.shape[1])
        of = (self._path, call.layout, scale, softcap, torch.get_num_threads())
        _check(self._library.ctxkit_logits(*of, out.data_ptr()))
        return out

    def gather(self, pages: Pages, table: Table, turns: Turns, length: int) -> tuple[Tensor, Tensor]:
        call = _Call(None, pages, table, turns)
        keys, values = (torch.empty(len(table.pages), length, part.shape[-1]) for part in (pages.keys, pages.values))
        of = (self._path, call.layout, length, torch.get_num_threads())
        _check(self._library.ctxkit_gather(*of, keys.data_ptr(), values.data_ptr()))
        return keys, values

    def chunk_attention(
        self, q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        def plain(turned: Tensor, some: Gathered) -> Merged:
            return self._chunk(turned, first_position, some, scale, softcap)

        return with_holds(plain, q, first_position, seen, frequencies)

    def _chunk(self, q: Tensor, first_position: int, seen: Gathered, scale: float, softcap: float) -> Merged:
        """`chunk_attention` where no token has a hold."""
        rows, heads, queries, dims = q.shape
        tokens, value_dims = seen.values.shape[1:]
        q, keys, values = (_dense(part.float()) for part in (q, seen.keys, seen.values))
        positions, reach = _dense(seen.positions), _dense(seen.reach)
        bias, *strides = _bias(seen.bias)
        out, lse = torch.empty(rows, heads, queries, value_dims), torch.empty(rows, heads, queries)
        addresses = map(_at, (q, keys, values, positions, reach, bias))
        sizes = (rows, heads, queries, dims, tokens, value_dims, _row_stride(positions), _row_stride(reach), *strides)
        layout = array("q", [*addresses, *sizes, first_position])
        of = (self._path, layout.buffer_info()[0], scale, softcap, torch.get_num_threads())
        _check(self._library.ctxkit_chunk(*of, out.data_ptr(), lse.data_ptr()))
        return out, lse

    def stream(self, buffer: Tensor, threads: int) -> float:
        """The sum of float32 `buffer` on this many threads, each number read once: for benchmarks of reading."""
        out = c_float()
        _check(self._library.ctxkit_stream(self._path, buffer.data_ptr(), buffer.numel(), threads, ctypes.byref(out)))
        return out.value


class _Call:
    """Pages and a table as `Layout` of attention.cpp; holds the tensors whose addresses are in it."""

    def __init__(self, q: Tensor | None, pages: Pages, table: Table, turns: Turns) -> None:
        _check_pages(pages)
        query = None if q is None else _dense(q.float())
        scales = None if pages.key_scales is None else _dense(pages.key_scales)
        value_scales = None if pages.value_scales is None else _dense(pages.value_scales)
        runs = [_dense(part) for part in (table.pages, table.first, table.count, table.turn)]
        bias, *bias_strides = _bias(table.bias)
        cos, sin = _dense(turns.cos), _dense(turns.sin)
        tensors = (query, pages.keys, pages.values, scales, value_scales, *runs, bias, cos, sin)
        count, page, key_dims = pages.keys.shape
        self._held = (
            tensors,
            array(
                "q",
                [
                    *map(_at, tensors),
                    *(
                        1 if query is None else query.shape[1],
                        key_dims,
                        pages.values.shape[2],
                        _KINDS[pages.keys.dtype],
                    ),
                    *(count, page, pages.keys.stride(0), pages.values.stride(0), *runs[0].shape),
                    *(*map(_row_stride, runs[1:]), *bias_strides, *cos.shape),
                ],
            ),
        )
        self.layout: int = self._held[1].buffer_info()[0]


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _row_stride(tensor: Tensor) -> int:
    """0 where all rows share the one that there is."""
    rows, length = tensor.shape
    return length if rows > 1 else 0


def _bias(bias: Tensor | None) -> tuple[Tensor | None, int, int]:
    """The bias [rows or 1, heads or 1, n], and its strides from row to row and from head to head."""
    if bias is None:
        return None, 0, 0
    bias = _dense(bias.float())
    rows, heads, length = bias.shape
    return bias, heads * length if rows > 1 else 0, length if heads > 1 else 0


def _check_pages(pages: Pages) -> None:
    kind = pages.keys.dtype
    for part in (pages.keys, pages.values):
        _, length, dims = part.shape
        _, token, one = part.stride()
        inside = (token == dims or length <= 1) and (one == 1 or dims == 1)
        if kind not in _KINDS or part.dtype != kind or not part.is_cpu or not inside:
            raise ValueError(
                "keys and values must both be float32, bfloat16, float16 or int8 on the CPU, each page contiguous; got "
                f"{part.dtype} on {part.device} with strides {part.stride()}"
            )


def _check(status: int) -> None:
    if status == 1:
        raise MemoryError("an attention kernel ran out of memory")
    if status == 2:
        raise IndexError("the table names a page, a token or a turn that is not there")
