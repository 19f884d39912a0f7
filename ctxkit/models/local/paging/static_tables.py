"""Static tables: what one token of each of some contexts sees, in tensors that stay where they are from pass to pass.

A row is one context's. A column of a track's table lists one run; it stays where it is while the run does, so that page
numbers, most of a table, are brought to the device only for runs that are new.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.part import Part, next_parts
from ctxkit.models.local.paging.runs import Array, Runs
from ctxkit.models.local.paging.tables import distinct_shifts

_ALIGNED = 32  # numbers; kernels read faster where their input begins at a multiple of 16 bytes
_NOTHING, _SCRATCH = -1, -2  # what a column lists that lists no run


class Numbers:
    """int32 numbers in named fields, which the host writes and one copy brings to the device.

    host: numpy arrays over memory that the device reads by itself. device: tensors, as they were last sent.
    """

    def __init__(self, shapes: Mapping[Hashable, tuple[int, ...]], device: torch.device) -> None:
        cuda = device.type == "cuda"
        ends = np.cumsum([-(-prod(shape) // _ALIGNED) * _ALIGNED for shape in shapes.values()]).tolist()
        self._host = torch.zeros(ends[-1], dtype=torch.int32, pin_memory=cuda)
        self._device = torch.zeros(ends[-1], dtype=torch.int32, device=device)
        self._sent = torch.cuda.Event() if cuda else None
        self.host: dict[Hashable, Array] = {}
        self.device: dict[Hashable, Tensor] = {}
        for (name, shape), start in zip(shapes.items(), [0, *ends[:-1]], strict=True):
            here = slice(start, start + prod(shape))
            self.host[name] = self._host.numpy()[here].reshape(shape)
            self.device[name] = self._device[here].view(shape)

    def wait(self) -> None:
        """Until the host may write again: until the last copy, not what came behind it, is done."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self) -> None:
        self._device.copy_(self._host, non_blocking=True)
        if self._sent is not None:
            self._sent.record()


class Batch:
    """The next token of some contexts, which have room for it once this is made.

    parts: of all tracks of the first context, then of the next. Raises MemoryInsufficient, and then no context has
    changed.
    """

    def __init__(self, contexts: Sequence[KVContext]) -> None:
        self.contexts = contexts
        self.parts = next_parts(contexts, 1)

    @cached_property
    def turns(self) -> tuple[Array, list[Array]]:
        """By which distances queries are turned, int64, the first of them 0; and which by each run of each part."""
        wanted = [part.shifts(part.placed) for part in self.parts]
        of, shifts = distinct_shifts(np.concatenate(wanted))
        return shifts, np.split(of, np.cumsum([len(one) for one in wanted[:-1]]))

    def of_track(self, track: int) -> list[Part]:
        """One part per context."""
        return self.parts[track :: len(self.parts) // len(self.contexts)]

    def take_back(self) -> None:
        for context in self.contexts:
            context.take_back()

    def count_touched(self) -> None:
        """Adds what the pass reads to each context's count of bytes."""
        for part in self.parts:
            track = part.track
            part.context.bytes_touched += len(track.members) * part.placed.runs.tokens * track.pool.token_bytes


class StaticTable:
    """What one track of each row sees, in the layers whose heads it holds, and where its new token goes.

    pages: int32 [layers, rows, KV heads, width], on the device. The fields of `shapes` are in the `Numbers` that it
    writes to: first, count and turn of each run, the column of the newest run, and the new token's offset in its page.
    """

    def __init__(
        self, layers: Sequence[int], rows: int, kv_heads: int, width: int, numbers: Numbers, track: int
    ) -> None:
        names = self.shapes(rows, width)
        device = next(iter(numbers.device.values())).device
        self.layers = tuple(layers)
        self.pages = torch.zeros(len(layers), rows, kv_heads, width, dtype=torch.int32, device=device)
        self.host = {name: numbers.host[track, name] for name in names}
        self.device = {name: numbers.device[track, name] for name in names}
        self._listed = np.full((rows, width), _NOTHING, np.int64)  # by each column
        self._runs = [np.zeros(0, np.int64)] * rows  # the last ones, and the columns that list them
        self._columns = [np.zeros(0, np.int64)] * rows
        self._new: list[tuple[int, Array, Array]] = []  # row, columns, and their pages [members, columns]

    @staticmethod
    def shapes(rows: int, width: int) -> dict[str, tuple[int, ...]]:
        runs = (rows, width)
        return {"first": runs, "count": runs, "turn": runs, "newest": (rows,), "offset": (rows,)}

    def show(self, row: int, part: Part, turn: Array) -> None:
        """The row sees what the part does, turned as `turn` says, int64 [runs]."""
        runs = part.placed.runs
        named = _named(part, runs)
        if not np.array_equal(named, self._runs[row]):
            self._list(row, part, named)
        columns = self._columns[row]
        self.host["count"][row] = 0
        for name, values in (("first", runs.first), ("count", runs.count), ("turn", turn)):
            self.host[name][row, columns] = values
        self.host["newest"][row] = columns[-1]
        self.host["offset"][row] = part.stored.offsets[0]

    def leave(self, row: int, scratch: int) -> None:
        """The row sees nothing, and writes to the page `scratch`."""
        for name in self.host:
            self.host[name][row] = 0
        if self._listed[row, 0] != _SCRATCH:
            self._listed[row, 0] = _SCRATCH
            self._runs[row] = self._runs[row][:0]
            members = self.pages.shape[0] * self.pages.shape[2]
            self._new.append((row, np.zeros(1, np.int64), np.full((members, 1), scratch, np.int32)))

    def send(self) -> None:
        """Lists on the device what is new."""
        if not self._new:
            return
        rows, columns, pages = zip(*self._new, strict=True)
        at = np.stack([np.repeat(rows, [len(one) for one in columns]), np.concatenate(columns)])
        layers, _, heads, _ = self.pages.shape
        named = np.concatenate(pages, axis=1).T.reshape(-1, layers, heads)
        to_rows, to_columns = _sent(at, self.pages.device)
        self.pages.permute(1, 3, 0, 2)[to_rows, to_columns] = _sent(named, self.pages.device)
        self._new.clear()

    def _list(self, row: int, part: Part, named: Array) -> None:
        """A column for each run: those that were listed already keep theirs."""
        listed = self._listed[row]
        order = np.argsort(listed)
        columns = order[np.searchsorted(listed, named, sorter=order).clip(max=len(order) - 1)]
        new = listed[columns] != named
        free = np.ones(len(listed), bool)
        free[columns[~new]] = False
        columns[new] = np.flatnonzero(free)[: int(new.sum())]
        listed[columns] = named
        self._runs[row], self._columns[row] = named, columns
        if new.any():
            self._new.append((row, columns[new], part.track.pages[:, part.placed.runs.slot[new]]))


def _named(part: Part, runs: Runs) -> Array:
    """int64 [runs], of each run a number that no run has whose pages are others, and no other run of the part."""
    pool = part.track.pool
    fresh = np.diff(runs.slot, prepend=-1) != 0  # runs of one page follow each other
    nth = np.arange(len(runs)) - np.flatnonzero(fresh)[np.cumsum(fresh) - 1]
    return pool.serials(part.track.pages[0, runs.slot]) * pool.page_tokens + nth


def _sent(array: Array, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
