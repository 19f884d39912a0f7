"""Attention without a C++ compiler: loops by numba, on one thread.

Pages are read where they lie, which is what makes this faster than gathering them in torch. Chunks of queries are
matrix products, which torch does well: they run by the reference, and so do float16 pages, which numba cannot read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

from ctxkit_kernels.attention.interface import Gathered, Merged, Pages, Table, Turns
from ctxkit_kernels.attention.reference import TorchAttention

_F = TypeVar("_F", bound=Callable[..., object])
_BFLOAT16 = 1  # the kind of pages that `_widen` tells apart


def _compiled(function: _F) -> _F:
    fast = {"reassoc", "contract"}  # not those that assume no infinities
    return cast(_F, numba.njit(cache=True, nogil=True, boundscheck=False, fastmath=fast)(function))


class NumbaAttention:
    """Every kernel by numba or the reference. The first call of each compiles it, some seconds, once per machine."""

    def __init__(self) -> None:
        self._torch = TorchAttention()

    @property
    def name(self) -> str:
        return "numba"

    def paged_attention(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        if not _readable(pages):
            return self._torch.paged_attention(q, pages, table, turns, scale=scale, softcap=softcap)
        out = torch.zeros(*q.shape[:2], pages.values.shape[2])
        lse = torch.empty(q.shape[:2])
        parts, runs = _parts(pages), _runs(table, table.bias, q.shape[1])
        _check(runs, parts, turns)
        _attend(_floats(q), parts, runs, _angles(turns), scale, softcap, out.numpy(), lse.numpy())
        return out, lse

    def token_logits(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Tensor:
        if not _readable(pages):
            return self._torch.token_logits(q, pages, table, turns, scale=scale, softcap=softcap)
        out = torch.full((*q.shape[:2], table.pages.shape[1] * pages.keys.shape[1]), -torch.inf)
        parts, runs = _parts(pages), _runs(table, table.bias, q.shape[1])
        _check(runs, parts, turns)
        _all_logits(_floats(q), parts, runs, _angles(turns), scale, softcap, out.numpy())
        return out

    def gather(self, pages: Pages, table: Table, turns: Turns, length: int) -> tuple[Tensor, Tensor]:
        if not _readable(pages):
            return self._torch.gather(pages, table, turns, length)
        keys, values = (torch.zeros(len(table.pages), length, part.shape[2]) for part in (pages.keys, pages.values))
        parts, runs = _parts(pages), _runs(table, None, 1)
        _check(runs, parts, turns)
        _gather(parts, runs, _angles(turns), keys.numpy(), values.numpy())
        return keys, values

    def chunk_attention(
        self, q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        return self._torch.chunk_attention(q, first_position, seen, frequencies, scale=scale, softcap=softcap)


def _readable(pages: Pages) -> bool:
    return pages.keys.dtype in (torch.float32, torch.bfloat16, torch.int8)


def _floats(tensor: Tensor) -> Any:
    return tensor.detach().float().contiguous().numpy()


def _parts(pages: Pages) -> tuple[Any, ...]:
    """(keys, values, key scales, value scales, kind); bfloat16 as the int16 that it looks like."""
    bits = pages.keys.dtype == torch.bfloat16
    keys, values = ((part.view(torch.int16) if bits else part).detach().numpy() for part in (pages.keys, pages.values))
    none = np.zeros((0, 0), np.float32)
    scales = (none if part is None else _floats(part) for part in (pages.key_scales, pages.value_scales))
    return keys, values, *scales, _BFLOAT16 if bits else 0


def _runs(table: Table, bias: Tensor | None, heads: int) -> tuple[Any, ...]:
    """(pages, first, count, turn, bias), all of them for every row and dense: numba compiles for one layout only."""
    rows, runs = table.pages.shape
    parts = (table.pages, table.first, table.count, table.turn)
    added = torch.zeros(1, 1, 1) if bias is None else bias.detach().float()
    whole = (*(part.expand(rows, runs) for part in parts), added.expand(rows, heads, runs))
    return tuple(part.contiguous().numpy() for part in whole)


def _angles(turns: Turns) -> tuple[Any, Any]:
    return _floats(turns.cos), _floats(turns.sin)


def _check(runs: tuple[Any, ...], parts: tuple[Any, ...], turns: Turns) -> None:
    pages, first, count, turn, _ = runs
    there = (pages >= 0) & (pages < parts[0].shape[0]) & (first >= 0) & (first + count <= parts[0].shape[1])
    if not np.all((count <= 0) | (there & (turn >= 0) & (turn < len(turns.cos)))):
        raise IndexError("the table names a page, a token or a turn that is not there")


@_compiled
def _widen(numbers: Any, kind: int, factor: float, bits: Any, floats: Any) -> None:
    """`floats`, which is `bits` by another name, becomes the numbers times the factor."""
    if kind == _BFLOAT16:  # the upper half of a float32
        for j in range(len(numbers)):
            bits[j] = np.uint32(np.uint16(numbers[j])) << np.uint32(16)
    else:
        for j in range(len(numbers)):
            floats[j] = np.float32(numbers[j]) * np.float32(factor)


@_compiled
def _turn(q: Any, cos: Any, sin: Any, scale: float, out: Any) -> None:
    pairs = len(cos)
    for head in range(len(q)):
        for j in range(pairs):
            one, two = q[head, j], q[head, j + pairs]
            out[head, j] = (one * cos[j] - two * sin[j]) * np.float32(scale)
            out[head, j + pairs] = (two * cos[j] + one * sin[j]) * np.float32(scale)
        for j in range(2 * pairs, q.shape[1]):
            out[head, j] = q[head, j] * np.float32(scale)


@_compiled
def _logits_of_row(
    row: int, q: Any, pages: Any, runs: Any, angles: Any, scale: float, softcap: float, out: Any
) -> None:
    keys, _, scales, _, kind = pages
    names, first, count, turn, bias = runs
    query = np.empty(q.shape[1:], np.float32)
    bits = np.empty(keys.shape[2], np.uint32)
    key = bits.view(np.float32)
    turned = -1
    for run in range(names.shape[1]):
        if count[row, run] > 0 and turn[row, run] != turned:
            turned = turn[row, run]
            _turn(q[row], angles[0][turned], angles[1][turned], scale, query)
        for t in range(count[row, run]):
            page, at = names[row, run], first[row, run] + t
            _widen(keys[page, at], kind, scales[page, at] if len(scales) else 1.0, bits, key)
            for head in range(len(query)):
                total = np.float32(0)
                for j in range(len(key)):
                    total += query[head, j] * key[j]
                if softcap > 0:
                    total = np.float32(softcap * np.tanh(total / softcap))
                out[head, run * keys.shape[1] + t] = total + bias[row, head, run]


@_compiled
def _all_logits(q: Any, pages: Any, runs: Any, angles: Any, scale: float, softcap: float, out: Any) -> None:
    for row in range(len(q)):
        _logits_of_row(row, q, pages, runs, angles, scale, softcap, out[row])


@_compiled
def _attend(q: Any, pages: Any, runs: Any, angles: Any, scale: float, softcap: float, out: Any, lse: Any) -> None:
    _, values, _, scales, kind = pages
    names, first, count, _, _ = runs
    logits = np.empty((q.shape[1], names.shape[1] * values.shape[1]), np.float32)
    bits = np.empty(values.shape[2], np.uint32)
    value = bits.view(np.float32)
    for row in range(len(q)):
        logits[:] = -np.inf
        _logits_of_row(row, q, pages, runs, angles, scale, softcap, logits)
        _weigh(logits, lse[row])
        for run in range(names.shape[1]):
            for t in range(count[row, run]):
                page, at = names[row, run], first[row, run] + t
                _widen(values[page, at], kind, scales[page, at] if len(scales) else 1.0, bits, value)
                for head in range(len(logits)):
                    weight = logits[head, run * values.shape[1] + t]
                    for j in range(len(value)):
                        out[row, head, j] += weight * value[j]


@_compiled
def _weigh(logits: Any, lse: Any) -> None:
    """Logits [heads, tokens] become weights."""
    for head in range(len(logits)):
        peak = np.float32(-np.inf)
        for t in range(logits.shape[1]):
            peak = max(peak, logits[head, t])
        top = max(peak, np.float32(-3e38))  # finite where no token is seen: all weights are then 0
        total = np.float32(0)
        for t in range(logits.shape[1]):
            weight = np.exp(logits[head, t] - top)
            logits[head, t] = weight
            total += weight
        for t in range(logits.shape[1]):
            logits[head, t] /= total if total != 0 else np.float32(1)
        lse[head] = peak + np.log(total)


@_compiled
def _gather(pages: Any, runs: Any, angles: Any, out_keys: Any, out_values: Any) -> None:
    keys, values, key_scales, value_scales, kind = pages
    names, first, count, turn, _ = runs
    dims, value_dims = keys.shape[2], values.shape[2]
    bits = np.empty(max(dims, value_dims), np.uint32)
    floats = bits.view(np.float32)
    for row in range(len(names)):
        to = 0
        for run in range(names.shape[1]):
            for t in range(min(count[row, run], out_keys.shape[1] - to)):
                page, at = names[row, run], first[row, run] + t
                cos, sin = angles[0][turn[row, run]], angles[1][turn[row, run]]
                _widen(keys[page, at], kind, key_scales[page, at] if len(key_scales) else 1.0, bits, floats)
                _turn(floats[:dims].reshape(1, dims), cos, -sin, 1.0, out_keys[row, to : to + 1])
                _widen(values[page, at], kind, value_scales[page, at] if len(value_scales) else 1.0, bits, floats)
                out_values[row, to] = floats[:value_dims]
                to += 1
