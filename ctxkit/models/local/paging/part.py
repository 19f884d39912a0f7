"""Part: one track of one context in one forward pass: what its rows see, and from where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ctxkit.errors import ModelError
from ctxkit.models.local.adapter import AttentionCall
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.runs import Array, Runs
from ctxkit.models.local.paging.tables import Entries, layout_of, stacked_bias, table_of, token_columns
from ctxkit.models.local.paging.track import Place, Track
from ctxkit.models.local.policies.base import FAR, SLIDING, View, overrides
from ctxkit_kernels.attention import AttentionKernels, Gathered


def next_parts(contexts: Sequence[KVContext], tokens: int, *, observe: bool = False) -> list[Part]:
    """Room for the next tokens of each context: the parts of its tracks, context by context.

    Raises MemoryInsufficient, and then no context has changed.
    """
    parts = []
    try:
        for index, context in enumerate(contexts):
            for track, place in zip(context.tracks, context.extend(tokens), strict=True):
                parts.append(Part(index, context, track, place, tokens, observe=observe))
    except ModelError:
        for context in contexts:
            context.take_back()
        raise
    return parts


class Part:
    """The next `tokens` tokens of a track, which have their `place` already.

    observe: this is the pass whose attention a policy that needs "prompt" looks at.
    """

    def __init__(
        self, index: int, context: KVContext, track: Track, place: Place, tokens: int, *, observe: bool
    ) -> None:
        self.index = index
        self.context = context
        self.track = track
        self.tokens = tokens
        self.start = len(context)
        self.origin = context.origin(self.start)
        self.policy = context.policy
        self.sliding = track.label == SLIDING  # no policy is asked about layers that slide by themselves
        self.selects = not self.sliding and overrides(self.policy, "select")
        needs = self.policy.needs
        self.regroups = not self.sliding and overrides(self.policy, "regroup")
        self.compensates = not self.sliding and self.policy.compensates and context.reach(track) is not None
        self.observes = not self.sliding and ("attention" in needs or (observe and "prompt" in needs))
        self.stored = place

    @cached_property
    def _written(self) -> tuple[Tensor, Tensor]:
        """On the device: the pages [members, tokens] and the offsets [tokens] that the new tokens go to."""
        device, place = self.track.pool.pages.keys.device, self.stored
        pages = torch.from_numpy(self.track.pages[:, place.slots].astype(np.int64))
        return pages.to(device), torch.from_numpy(place.offsets).to(device)

    def heads(self, layer: int) -> Array:
        return self.track.heads[self.track.rows[layer]]

    def write(self, call: AttentionCall) -> None:
        """Stores the pass's keys and values."""
        heads = self.heads(call.layer)
        keys, values = call.key[self.index], call.value[self.index]
        if len(heads) < len(keys):
            keys, values = keys[heads], values[heads]
        pages, offsets = self._written
        self.track.pool.write(pages[self.track.rows[call.layer]], offsets, keys, values)

    def queries(self, q: Tensor, layer: int) -> Tensor:
        """This part's queries, [rows, heads in a group, queries, dims], after the policy's query scale."""
        heads = self.heads(layer)
        mine = q[self.index] if len(heads) == q.shape[1] else q[self.index, heads]
        scale = None if self.sliding else self.policy.query_scale(self.start + np.arange(self.tokens), layer)
        return mine if scale is None else mine * torch.from_numpy(np.asarray(scale, np.float32)).to(mine)[:, None]

    # --- what is seen ------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> View:
        """What position alone shows to these queries: the reach, seen from where it stands."""
        runs, reach = self.track.runs, self.context.reach(self.track)
        if reach is None:
            return View.of(runs.since(self.start) if self.selects else runs)
        far = FAR if self.selects else reach.recent  # a selection is made once for the pass: none falls out of both
        recent = View.of(runs.since(max(self.start - reach.recent + 1, reach.sinks)), far)
        return View.of(runs.before(reach.sinks)).then(recent) if reach.sinks else recent

    @cached_property
    def candidates(self) -> Runs:
        """The tokens before these queries that the base does not show."""
        runs, reach = self.track.runs, self.context.reach(self.track)
        if reach is None:
            return runs.before(self.start)
        return runs.since(reach.sinks).before(self.start - reach.recent + 1)

    @cached_property
    def placed(self) -> View:
        """What all layers see where nothing is selected."""
        return self.base if self.sliding else self.place(self.base)

    def place(self, view: View) -> View:
        """From where the policy sees the view, in the runs that its bias tells apart."""
        placed = self.policy.place(view, self.start, self.track.label)
        return placed.apart(self.policy.apart) if self.policy.apart else placed

    @cached_property
    def _placed_pages(self) -> Array:
        return self.track.pages[:, self.placed.runs.slot]

    # --- for the kernels ---------------------------------------------------------------------------------------

    def shifts(self, view: View) -> Array:
        """int64 [runs], by how much one query at `start` is turned for each run."""
        return self.origin - view.runs.origin - view.gap - np.maximum(self.start - view.hold, 0)

    def entries(self, views: list[View], layer: int) -> list[Entries]:
        """A table's rows for one query: one entry for all rows of the layer, or one per row."""
        rows = self.track.rows[layer]
        if len(views) == 1:
            view = views[0]
            pages = self._placed_pages if view is self.placed else self.track.pages[:, view.runs.slot]
            seen = self.track.pool.seen(pages[rows])
            return [Entries(seen, view.runs, self.shifts(view), self.bias(view, layer))]
        found = []
        for row, view in enumerate(views):
            bias = self.bias(view, layer)
            pages = self.track.pool.seen(self.track.pages[rows][row : row + 1, view.runs.slot])
            found.append(Entries(pages, view.runs, self.shifts(view), None if bias is None else bias[row : row + 1]))
        return found

    def bias(self, view: View, layer: int) -> Array | None:
        """float32 [rows, heads in a group or 1, runs]."""
        found = None if self.sliding else self.policy.bias(view, layer)
        if found is None:
            return None
        heads = self.heads(layer)
        if len(found) == 1:
            return np.broadcast_to(found[None], (len(heads), *found.shape))
        return found.reshape(self.context.shape.kv_heads, -1, found.shape[-1])[heads]

    def gathered(self, views: list[View], layer: int, kernels: AttentionKernels, frequencies: Tensor) -> Gathered:
        """What many queries see, side by side. Tokens are turned by where they stand; holds are left to the kernel."""
        entries = [
            Entries(one.pages, one.runs, self.origin - view.runs.origin - view.gap, one.bias)
            for one, view in zip(self.entries(views, layer), views, strict=True)
        ]
        layout = layout_of(entries, frequencies)
        length = max(1, *(view.runs.tokens for view in views))
        keys, values = kernels.gather(self.track.pool.pages, table_of(entries, layout), layout.turns, length)
        columns = [np.stack(column) for column in zip(*(token_columns(view, length) for view in views), strict=True)]
        positions, reach, hold = (torch.from_numpy(column).to(keys.device) for column in columns)
        bias = stacked_bias(entries, length, per_token=True)
        return Gathered(keys, values, positions, reach, hold, None if bias is None else bias.to(keys.device))
