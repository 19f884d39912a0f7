"""StaticStep: a decoding pass over tensors that never move, so that a CUDA graph of it can be replayed.

A token's pass through a small or quantised model takes less time than launching its kernels one by one does. So all
that differs from pass to pass is written into the same tensors, in a few copies, and the launches are replayed as one.
Without CUDA the same pass is called.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctxkit.models.local import adapter
from ctxkit.models.local.adapter import AttentionCall, ModelShape
from ctxkit.models.local.graphs import Graphs
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.static_tables import Batch, Numbers, StaticTable
from ctxkit_kernels.attention import AttentionKernels, Table, Turns, shift_turns, with_sink


@dataclass(frozen=True)
class Size:
    """What a static step has room for: the shapes of its tensors.

    rows: contexts. layers: of each track. widths: runs of each track. turns: distances that queries are turned by.
    """

    rows: int
    layers: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]
    turns: int

    @property
    def cells(self) -> int:
        """Of all tables: what a pass over it costs, whether they list anything or not."""
        return self.rows * sum(self.widths)

    def covers(self, other: Size) -> bool:
        wide = self.layers == other.layers and all(a >= b for a, b in zip(self.widths, other.widths, strict=True))
        return wide and self.rows >= other.rows and self.turns >= other.turns


@dataclass(frozen=True)
class _Spread:
    """A table's columns for one pass, for each KV head: int32 [rows * KV heads, width].

    pages, offsets: int64 [layers, rows * KV heads, 1] and [rows * KV heads, 1], where the new token goes.
    """

    first: Tensor
    count: Tensor
    turn: Tensor
    pages: Tensor
    offsets: Tensor


class StaticStep:
    """Reads one token of each of up to `size.rows` contexts. It is the `Pass` of its own forward pass.

    A context keeps its row for as long as it is in every batch; rows that nobody uses see nothing, and write to the
    page `scratch`.

    The first pass is captured. From then on the weights and the pool's pages must stay where they are; whether the
    pages do, `stale` tells.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: ModelShape,
        kernels: AttentionKernels,
        pool: PagePool,
        size: Size,
        *,
        graphs: Graphs,
        scratch: int,
    ) -> None:
        self.model, self.shape, self.kernels, self.pool, self.size = model, shape, kernels, pool, size
        self.device = shape.device
        self._graphs, self._scratch = graphs, scratch
        self._made_for = weakref.ref(pool.pages)  # weakly: pages that the pool has left may be freed
        named: dict[Hashable, tuple[int, ...]] = dict.fromkeys(("ids", "positions", "order"), (size.rows,))
        for track, width in enumerate(size.widths):
            named |= {(track, name): wanted for name, wanted in StaticTable.shapes(size.rows, width).items()}
        self.numbers = Numbers({**named, "shifts": (size.turns,)}, self.device)
        self.tables = [
            StaticTable(layers, size.rows, shape.kv_heads, width, self.numbers, track)
            for track, (layers, width) in enumerate(zip(size.layers, size.widths, strict=True))
        ]
        self._place = {layer: (table, at) for table in self.tables for at, layer in enumerate(table.layers)}
        self._rows: dict[int, int] = {}  # of each context in the last batch, by its id
        self._turns: dict[int, Turns] = {}
        self._spread: dict[int, _Spread] = {}
        self._replay: Callable[[], Tensor] | None = None

    @property
    def stale(self) -> bool:
        """Whether the pool's pages are elsewhere by now."""
        return self._made_for() is not self.pool.pages

    def read(self, batch: Batch, ids: Sequence[int]) -> Tensor:
        """Logits after one id of each context, float32 [contexts, vocabulary]. Raises CaptureFailed."""
        self.numbers.wait()
        self._show(batch, ids)
        self.numbers.send()
        for table in self.tables:
            table.send()
        if self._replay is None:
            self._replay = self._graphs.captured(self.forward)
        logits = self._replay()[: len(ids)].clone()  # the next replay writes where these were
        batch.count_touched()
        return logits

    def forward(self) -> Tensor:
        """What is captured: logits float32 [rows, vocabulary] of what the tensors ask for. Waits for nothing."""
        now = self.numbers.device
        self._turns.clear()
        self._spread.clear()
        ids, positions = now["ids"].long()[:, None], now["positions"].long()[:, None]
        logits = adapter.run(self.model, ids, positions, self, keep=1)
        return logits[:, 0].index_select(0, now["order"]).float()

    def attend(self, call: AttentionCall) -> Tensor:
        """Stores the new keys and values, then attends to what the table of the layer's track lists."""
        table, at = self._place[call.layer]
        rows, heads, _, dims = call.query.shape
        spread = self._spread_of(table)
        self.pool.write(spread.pages[at], spread.offsets, call.key.flatten(0, 1), call.value.flatten(0, 1))
        listed = Table(table.pages[at].flatten(0, 1), spread.first, spread.count, spread.turn)
        q = call.query.reshape(len(listed.pages), -1, dims)  # [rows * KV heads, heads in a group, dims]
        turns = self._turns_of(call.layer)
        merged = self.kernels.paged_attention(q, self.pool.pages, listed, turns, scale=call.scale, softcap=call.softcap)
        if call.sinks is not None:
            merged = with_sink(merged, call.sinks.float().view(1, -1).expand(rows, -1).reshape(merged[1].shape))
        return merged[0].reshape(rows, 1, heads, -1).to(call.query.dtype)

    # --- before the pass ---------------------------------------------------------------------------------------

    def _show(self, batch: Batch, ids: Sequence[int]) -> None:
        rows, numbers = self._assign(batch.contexts), self.numbers.host
        numbers["order"][: len(rows)] = rows
        shifts, turns = batch.turns
        numbers["shifts"][: len(shifts)] = shifts
        tracks = len(self.tables)
        for index, (row, token) in enumerate(zip(rows, ids, strict=True)):
            first = batch.parts[index * tracks]
            numbers["ids"][row], numbers["positions"][row] = token, first.start - first.origin
            for at, table in enumerate(self.tables, index * tracks):
                table.show(row, batch.parts[at], turns[at])
        for row in set(range(self.size.rows)).difference(rows):
            numbers["ids"][row] = numbers["positions"][row] = 0
            for table in self.tables:
                table.leave(row, self._scratch)

    def _assign(self, contexts: Sequence[KVContext]) -> list[int]:
        """A row for each context: the one that it has, or one that is free."""
        known = [self._rows.get(id(context)) for context in contexts]
        free = iter(sorted(set(range(self.size.rows)).difference(row for row in known if row is not None)))
        rows = [next(free) if row is None else row for row in known]
        self._rows = {id(context): row for context, row in zip(contexts, rows, strict=True)}
        return rows

    # --- in the pass: once for all layers ----------------------------------------------------------------------

    def _spread_of(self, table: StaticTable) -> _Spread:
        if id(table) not in self._spread:
            layers, rows, heads, _ = table.pages.shape
            named = {name: table.device[name] for name in ("first", "count", "turn")}
            columns = {name: part[:, None].expand(-1, heads, -1).flatten(0, 1) for name, part in named.items()}
            newest = table.device["newest"].long().view(1, rows, 1, 1).expand(layers, rows, heads, 1)
            pages = table.pages.gather(3, newest).long().flatten(1, 2)
            offsets = table.device["offset"].long()[:, None].expand(rows, heads).reshape(-1, 1)
            self._spread[id(table)] = _Spread(**columns, pages=pages, offsets=offsets)
        return self._spread[id(table)]

    def _turns_of(self, layer: int) -> Turns:
        found = self.shape.layers[layer].frequencies
        key = -1 if found is None else found.data_ptr()
        if key not in self._turns:
            frequencies = torch.zeros(0, device=self.device) if found is None else found
            self._turns[key] = shift_turns(self.numbers.device["shifts"].long(), frequencies)
        return self._turns[key]
