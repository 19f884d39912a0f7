"""Step: the attention of one forward pass, over the pages of one or more contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ctxkit.errors import PolicyError
from ctxkit.models.local.adapter import AttentionCall, ModelShape
from ctxkit.models.local.paging.compensation import compensated
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.evidence import Watch, Watched, observe
from ctxkit.models.local.paging.look import select_views
from ctxkit.models.local.paging.part import Part, next_parts
from ctxkit.models.local.paging.regroup import regrouped
from ctxkit.models.local.paging.tables import Layout, layout_of, table_of
from ctxkit.models.local.policies.base import View
from ctxkit_kernels.attention import AttentionKernels, Merged, precise_dtype, with_sink


def commit(contexts: Sequence[KVContext], ids: Sequence[Sequence[int]], logits: Tensor, *, settle: bool = True) -> None:
    """A pass over some ids of each context went well; logits float32 [contexts, 1 or more of the last, vocabulary]."""
    for context, own, rows in zip(contexts, ids, logits, strict=True):
        context.commit(own)
        if "surprisal" in context.policy.needs:
            context.note_surprisal(own, rows)
    for context in contexts if settle else ():
        context.settle("step")


class Step:
    """One pass over the next tokens of some contexts: as many each, and one each where there are several contexts.

    Made, run through the model (it is the `Pass` of adapter.run), and then `commit` or `take_back`.
    watch: is shown every layer's attention. observe: this pass is the one that "prompt" evidence is taken from.
    Raises MemoryInsufficient, and then no context has changed.
    """

    def __init__(
        self,
        contexts: Sequence[KVContext],
        tokens: int,
        shape: ModelShape,
        kernels: AttentionKernels,
        *,
        watch: Watch | None = None,
        observe: bool = False,
    ) -> None:
        self.contexts = contexts
        self.tokens = tokens
        self.shape = shape
        self.kernels = kernels
        self.watch = watch
        self.parts = next_parts(contexts, tokens, observe=observe)
        self._layouts: dict[tuple[int, ...], Layout] = {}

    @property
    def positions(self) -> Tensor:
        """int64 [contexts, tokens], where the model is to rotate the tokens: within their frames."""
        inner = [len(context) - context.origin(len(context)) for context in self.contexts]
        return torch.tensor(inner)[:, None] + torch.arange(self.tokens)

    def take_back(self) -> None:
        for context in self.contexts:
            context.take_back()

    def attend(self, call: AttentionCall) -> Tensor:
        batch, heads, tokens, dims = call.query.shape
        kv_heads = call.key.shape[1]
        q = call.query.view(batch, kv_heads, heads // kv_heads, tokens, dims)
        out = torch.empty(*q.shape[:-1], call.value.shape[-1], device=q.device, dtype=precise_dtype(call.query.dtype))
        sinks = None if call.sinks is None else call.sinks.view(kv_heads, -1).float()
        parts = [part for part in self.parts if call.layer in part.track.rows]
        parts[0].track.pool.next_use()
        for part in parts:
            part.write(call)
        if tokens == 1:
            self._decode(parts, q, call, sinks, out)
        else:
            for part in parts:
                self._chunk(part, q, call, sinks, out)
        return out.permute(0, 3, 1, 2, 4).reshape(batch, tokens, heads, -1).to(call.query.dtype)

    def _decode(self, parts: list[Part], q: Tensor, call: AttentionCall, sinks: Tensor | None, out: Tensor) -> None:
        """One query per head: all rows in one call of the kernel."""
        queries = [part.queries(q, call.layer) for part in parts]  # [rows, groups, 1, dims] each
        views = [self._views(part, call, own) for part, own in zip(parts, queries, strict=True)]
        entries = [one for part, own in zip(parts, views, strict=True) for one in part.entries(own, call.layer)]
        layout = self._layout(parts, views, entries, call.layer)
        rows = torch.cat(queries)[:, :, 0] if len(queries) > 1 else queries[0][:, :, 0]
        pages = parts[0].track.pool.pages
        how: dict[str, Any] = {"scale": call.scale, "softcap": call.softcap}
        merged = self.kernels.paged_attention(rows, pages, table_of(entries, layout), layout.turns, **how)
        at = 0
        for part, own, asked in zip(parts, views, queries, strict=True):
            here = slice(at, at + len(asked))
            self._finish(part, own, call, asked, (merged[0][here, :, None], merged[1][here, :, None]), sinks, out)
            at = here.stop

    def _chunk(self, part: Part, q: Tensor, call: AttentionCall, sinks: Tensor | None, out: Tensor) -> None:
        """Many queries per head, of one context."""
        frequencies = self._frequencies(call.layer)
        mine = part.queries(q, call.layer)
        views = self._views(part, call, mine)
        gathered = part.gathered(views, call.layer, self.kernels, frequencies)
        how: dict[str, Any] = {"scale": call.scale, "softcap": call.softcap}
        merged = self.kernels.chunk_attention(mine, part.start, gathered, frequencies, **how)
        self._finish(part, views, call, mine, merged, sinks, out)

    def _finish(
        self,
        part: Part,
        views: list[View],
        call: AttentionCall,
        q: Tensor,
        merged: Merged,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        """What comes after the kernel: the policy's weighing of groups, learned sinks, and who wants to see it."""
        frequencies = self._frequencies(call.layer)
        if part.regroups:
            merged = regrouped(part, views, call, q, merged, self.kernels, frequencies)
        if part.compensates:
            merged = compensated(part, call, q, merged, frequencies)
        if sinks is not None:
            merged = with_sink(merged, sinks[part.heads(call.layer)][..., None])
        out[part.index, part.heads(call.layer)] = merged[0]
        self._note(part, views, call, q, merged[1])

    def _views(self, part: Part, call: AttentionCall, q: Tensor) -> list[View]:
        views = select_views(part, call, q, self.kernels) if part.selects else [part.placed]
        rows = len(q) if len(views) == 1 else 1  # one view for all rows, or one for each
        part.context.bytes_touched += rows * sum(view.runs.tokens for view in views) * part.track.pool.token_bytes
        return views

    def _layout(self, parts: list[Part], views: list[list[View]], entries: list[Any], layer: int) -> Layout:
        """Made once per pass for the views that all layers share."""
        frequencies = self._frequencies(layer)
        if any(own[0] is not part.placed for part, own in zip(parts, views, strict=True)):
            return layout_of(entries, frequencies)
        key = (frequencies.data_ptr(), *(id(part) for part in parts), *(len(one.pages) for one in entries))
        if key not in self._layouts:
            self._layouts[key] = layout_of(entries, frequencies)
        return self._layouts[key]

    def _note(self, part: Part, views: list[View], call: AttentionCall, q: Tensor, lse: Tensor) -> None:
        """Shows the attention to the policy and to whoever watches."""
        if self.watch is None and not part.observes:
            return
        if len(views) > 1:
            raise PolicyError("what each head sees was selected apart; such attention cannot be watched or observed")
        frequencies = self._frequencies(call.layer)
        watched = Watched(part, call, q, lse, part.gathered(views, call.layer, self.kernels, frequencies), frequencies)
        if self.watch is not None:
            self.watch(watched)
        if part.observes:
            observe(watched)

    def _frequencies(self, layer: int) -> Tensor:
        found = self.shape.layers[layer].frequencies
        return torch.zeros(0, device=self.shape.device) if found is None else found
