"""Look: what a selection sees before one layer's attention, and what the rows see after it chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.adapter import AttentionCall
from ctxkit.models.local.paging.part import Part
from ctxkit.models.local.paging.runs import Array, Runs
from ctxkit.models.local.paging.tables import Entries, layout_of, table_of
from ctxkit.models.local.paging.tiered import TieredPool
from ctxkit.models.local.policies.base import Policy, View, state_of
from ctxkit_kernels.attention import (
    AttentionKernels,
    Pages,
    Table,
    Turns,
    attention_kernels,
    precise,
    shift_turns,
    turned,
)


@dataclass
class Look:
    """One layer of one track, before its attention.

    frame_q: [rows, heads in a group, queries, dims], rotated within their frame. label: which heads these are.
    state: the policy's own, of this context and layer; it lives as long as the context is not cropped. Its tensors are
    replaced, never written to: a fork shares them.

    The candidates are the stored tokens before these queries that position alone does not show.
    """

    part: Part
    call: AttentionCall
    kernels: AttentionKernels
    frame_q: Tensor
    label: int
    state: dict[str, Any]

    @property
    def layer(self) -> int:
        return self.call.layer

    @property
    def layers(self) -> int:
        return len(self.part.context.shape.layers)

    @property
    def scale(self) -> float:
        return self.call.scale

    @property
    def first_query(self) -> int:
        """Where the first of these queries stands."""
        return self.part.start

    @property
    def queries(self) -> int:
        return self.part.tokens

    @property
    def positions(self) -> Array:
        """int64 [candidates], where they stand."""
        return self.part.candidates.token_positions()

    @property
    def q(self) -> Tensor:
        """float32 [rows, heads in a group, queries, dims], rotated where each query stands."""
        return self._turned(precise(self.frame_q), np.full(self.queries, self.part.origin))

    def standing(self, position: int) -> Tensor:
        """As `q`, as if every query stood at `position`; at 0: as before any rotation."""
        return self._turned(
            precise(self.frame_q), position + self.part.origin - self.first_query - np.arange(self.queries)
        )

    def shared(self) -> dict[str, Any]:
        """A state of this context that all layers share."""
        return state_of(self.part.context.states, (self.part.policy, self.part.track.label, "all layers"))

    def logits(self, q: Tensor, of: Tensor | None = None) -> Tensor:
        """float32 [rows, heads in a group, n]; q [rows, heads in a group, dims] stands at `first_query`.

        of: int64 [n], sorted numbers of candidates; by default all of them.
        """
        runs, page = self.part.candidates, self.part.track.pool.page_tokens
        if of is not None:
            runs = runs.pick(of.cpu().numpy())
        inner = self._turned(precise(q[:, :, None]), np.array([-self.part.origin]))[:, :, 0]
        kernels, pages, table, turns = self._stored(runs, self.part.origin - runs.origin)
        how: dict[str, Any] = {"scale": self.call.scale, "softcap": self.call.softcap}
        padded = kernels.token_logits(inner.to(pages.keys.device), pages, table, turns, **how)
        inside = (np.arange(page) < runs.count[:, None]).ravel()
        self.touch(len(q) * runs.tokens * self.part.track.pool.key_bytes)
        return padded[..., torch.from_numpy(np.flatnonzero(inside)).to(padded.device)].to(q.device)

    def keys(self, *, rotated: bool = True, start: int = 0, end: int | None = None) -> Tensor:
        """float32 [rows, candidates start .. end - 1, dims]; rotated where they stand, or as before any rotation."""
        runs = self.part.candidates
        runs = runs.pick(np.arange(start, runs.tokens if end is None else end))
        kernels, pages, table, turns = self._stored(runs, -runs.origin)
        keys = kernels.gather(pages, table, turns, runs.tokens)[0].to(self.frame_q.device)
        self.touch(len(keys) * runs.tokens * self.part.track.pool.key_bytes)
        return keys if rotated else self._turned(keys, -runs.token_positions())

    def touch(self, count: int) -> None:
        """Notes that a selection has read so many bytes. What `Look` itself reads is noted already."""
        self.part.context.bytes_touched += count

    def scores(self, start: int = 0, end: int | None = None) -> Tensor:
        """float32 [rows, candidates start .. end - 1], what `observe` made of them; zeros before the first."""
        runs, track = self.part.candidates, self.part.track
        positions = runs.token_positions()[start:end]
        rows = track.rows[self.layer]
        if track.scores is None:
            return torch.zeros(rows.stop - rows.start, len(positions), device=self.frame_q.device)
        at = np.searchsorted(track.runs.token_positions(), positions)
        return torch.from_numpy(track.scores[rows][:, at]).to(self.frame_q.device)

    def summaries(
        self, policy: Policy, block_tokens: int, *, rotated: bool = True, only: Tensor | None = None
    ) -> Tensor:
        """What `policy.represent` made of each whole block of candidates, [rows, blocks, ...]; made once per block.

        Block b are the candidates b * block_tokens .. (b + 1) * block_tokens - 1; what is left over belongs to none.
        only: int64 [rows, n], the numbers along the third dimension that are read.
        """
        positions = self.positions
        heads = positions[: len(positions) // block_tokens * block_tokens : block_tokens]
        known: tuple[Array, Tensor | None] = self.state.get("summaries", (heads[:0], None))
        done = len(known[0])
        if done > len(heads) or not np.array_equal(known[0], heads[:done]):
            known, done = (heads[:0], None), 0
        if done < len(heads) or known[1] is None:
            start, end = done * block_tokens, len(heads) * block_tokens
            keys = self.keys(rotated=rotated, start=start, end=end)
            blocks = keys.view(len(keys), len(heads) - done, block_tokens, -1)
            made = policy.represent(blocks, self.scores(start, end).view(*blocks.shape[:3]))
            known = (heads, made if known[1] is None else torch.cat([known[1], made], dim=1))
            self.state["summaries"] = known
        assert known[1] is not None
        found = known[1] if only is None else known[1].take_along_dim(only[:, None, :, None], dim=2)
        self.touch(found.numel() * found.element_size())
        return found

    def _stored(self, runs: Runs, shifts: Array) -> tuple[AttentionKernels, Pages, Table, Turns]:
        """The tokens as the kernels take them, where they are: of a tiered pool, in the host's memory."""
        pool = self.part.track.pool
        pages = self.part.track.pages[self.part.track.rows[self.layer]][:, runs.slot]
        kernels, store, frequencies = self.kernels, pool.pages, self._frequencies
        if isinstance(pool, TieredPool):
            pages, store, frequencies = pool.on_host(pages), pool.host.pages, frequencies.cpu()
            kernels = attention_kernels("cpu")
        entries = [Entries(pages, runs, shifts, None)]
        layout = layout_of(entries, frequencies)
        return kernels, store, table_of(entries, layout), layout.turns

    @property
    def _frequencies(self) -> Tensor:
        found = self.part.context.shape.layers[self.layer].frequencies
        return torch.zeros(0, device=self.frame_q.device) if found is None else found

    def _turned(self, q: Tensor, shifts: Array) -> Tensor:
        turns = shift_turns(torch.from_numpy(shifts).to(q.device), self._frequencies)
        return turned(q, turns.cos, turns.sin)


def select_views(part: Part, call: AttentionCall, q: Tensor, kernels: AttentionKernels) -> list[View]:
    """What the rows of a layer see after the policy selected: one view for all of them, or one per row.

    q: [rows, heads in a group, queries, dims].
    """
    candidates = part.candidates
    if not candidates.tokens:
        return [part.placed]
    state = state_of(part.context.states, (part.policy, part.track.label, call.layer))
    chosen = part.policy.select(Look(part, call, kernels, q, part.track.label, state))
    if chosen is None:
        views = [View.of(candidates).then(part.base)]
    else:
        views = [View.of(candidates.pick(row[row >= 0])).then(part.base) for row in chosen.cpu().numpy()]
    return [part.place(view) for view in views]
