"""From views to what the kernels take: tables of pages, turns, and columns of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.paging.runs import Array, Runs
from ctxkit.models.local.policies.base import FAR, View
from ctxkit_kernels.attention import Table, Turns, shift_turns


@dataclass(frozen=True)
class Entries:
    """Rows of a table that see the same runs.

    pages: int32 [rows, runs]. shifts: int64 [runs]. bias: float32 [rows, heads in a group or 1, runs] or None.
    """

    pages: Array
    runs: Runs
    shifts: Array
    bias: Array | None


@dataclass(frozen=True)
class Layout:
    """The columns of a table that do not depend on the layer, int32 [rows or 1, runs] each, and its turns."""

    first: Tensor
    count: Tensor
    turn: Tensor
    turns: Turns


def layout_of(entries: Sequence[Entries], frequencies: Tensor) -> Layout:
    """Padded to the longest of the entries."""
    of, distinct = distinct_shifts(np.concatenate([one.shifts for one in entries]))
    turns = shift_turns(torch.from_numpy(distinct).to(frequencies.device), frequencies)
    ends = np.cumsum([len(one.runs) for one in entries])
    turn = [of[end - len(one.runs) : end] for one, end in zip(entries, ends, strict=True)]
    columns = ([one.runs.first for one in entries], [one.runs.count for one in entries], turn)
    rows = [len(one.pages) for one in entries]
    first, count, number = (_as_int32(_stacked(column, rows), frequencies.device) for column in columns)
    return Layout(first, count, number, turns)


def table_of(entries: Sequence[Entries], layout: Layout) -> Table:
    device = layout.first.device
    width = layout.first.shape[1]
    pages = np.concatenate([_padded(one.pages, width) for one in entries]) if len(entries) > 1 else entries[0].pages
    bias = stacked_bias(entries, width)
    named = torch.from_numpy(np.ascontiguousarray(pages, np.int32)).to(device)
    return Table(named, layout.first, layout.count, layout.turn, None if bias is None else bias.to(device))


def stacked_bias(entries: Sequence[Entries], width: int, *, per_token: bool = False) -> Tensor | None:
    """float32 [rows, heads in a group or 1, width]: of runs, or of tokens."""
    groups = max((one.bias.shape[1] for one in entries if one.bias is not None), default=0)
    if not groups:
        return None
    whole = []
    for one in entries:
        bias = np.zeros((len(one.pages), groups, len(one.runs))) if one.bias is None else one.bias
        bias = np.broadcast_to(bias, (len(bias), groups, bias.shape[-1]))
        whole.append(_padded(np.repeat(bias, one.runs.count, axis=-1) if per_token else bias, width))
    return torch.from_numpy(np.concatenate(whole).astype(np.float32))


def token_columns(view: View, length: int) -> tuple[Array, Array, Array]:
    """(positions, reach, hold) of each token, int64 [length]; padding stands at -1."""
    counts = view.runs.count
    missing = (0, length - int(counts.sum()))
    positions = np.pad(view.runs.token_positions(), missing, constant_values=-1)
    reach = np.pad(np.repeat(view.reach, counts), missing)
    return positions, reach, np.pad(np.repeat(view.hold, counts), missing, constant_values=FAR)


def distinct_shifts(shifts: Array) -> tuple[Array, Array]:
    """Which turn each shift is, and the shift of each turn, both int64; number 0 turns nothing."""
    distinct, of = np.unique(np.r_[0, shifts], return_inverse=True)
    zero = int(of[0])
    order = np.r_[zero, np.delete(np.arange(len(distinct)), zero)]
    number = np.argsort(order)
    return number[of[1:]], distinct[order]


def _stacked(columns: Sequence[Array], rows: Sequence[int]) -> Array:
    """[1, runs] where all rows are alike, else [rows, runs]."""
    if len(columns) == 1:
        return columns[0][None]
    width = max(map(len, columns))
    return np.concatenate(
        [np.broadcast_to(_padded(column[None], width), (n, width)) for column, n in zip(columns, rows, strict=True)]
    )


def _padded(columns: Array, width: int) -> Array:
    return np.pad(columns, [(0, 0)] * (columns.ndim - 1) + [(0, width - columns.shape[-1])])


def _as_int32(column: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(column, np.int32)).to(device)
