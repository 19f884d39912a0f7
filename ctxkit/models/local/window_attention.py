"""What the last positions of a prompt attended to, seen while the model computes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.evidence import Watched
from ctxkit.models.local.policies.full import Full

_BLOCK_QUERIES = 64


class MostAttention:
    """A watch: the largest probability over all heads of all layers from `first_layer` on.

    queries: of the pass. tokens: the text's, with the queries. Nothing is recomputed from weights: what is read are the
    queries and keys of the pass itself, after whatever the architecture does to them.
    """

    def __init__(self, queries: int, tokens: int, first_layer: int, device: torch.device) -> None:
        self.first_layer = first_layer
        self.most = torch.zeros(queries, tokens, device=device)

    def __call__(self, watched: Watched) -> None:
        if watched.layer < self.first_layer:
            return
        at = torch.from_numpy(watched.positions).to(self.most.device)
        for start in range(0, len(self.most), _BLOCK_QUERIES):
            end = min(len(self.most), start + _BLOCK_QUERIES)
            layer = watched.probabilities(start, end).amax((0, 1))  # [queries, tokens seen]
            self.most[start:end, at] = torch.maximum(self.most[start:end, at], layer)


def window_attention(
    engine: Engine,
    ids: Sequence[int],
    *,
    window: int,
    first_layer: int,
    lookahead_tokens: int,
    eos_ids: Collection[int],
) -> torch.Tensor:
    """What `LocalModel.window_attention` gives, float32 [window + looked ahead, ids]."""
    context = engine.new_context(Full())
    try:
        engine.prefill(ids[:-window], context)
        rows, logits = _watched(engine, ids[-window:], context, first_layer)
        found = [rows]
        for _ in range(lookahead_tokens):
            token = int(logits.argmax())
            if token in eos_ids:
                break
            rows, logits = _watched(engine, [token], context, first_layer)
            found.append(rows)
    finally:
        engine.close(context)
    return torch.cat([rows[:, : len(ids)] for rows in found])


def _watched(
    engine: Engine, ids: Sequence[int], context: KVContext, first_layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feeds ids, in one pass: their attention, float32 [ids, tokens], and the logits after the last, [vocabulary]."""
    rows = []
    logits = torch.zeros(0)
    for start, end in context.passes(len(ids)):
        some = ids[start:end]
        most = MostAttention(len(some), len(context) + len(some), first_layer, engine.shape.device)
        logits = engine.forward(some, context, watch=most)[-1]
        rows.append(most.most)
    return torch.cat([torch.nn.functional.pad(own, (0, len(context) - own.shape[1])) for own in rows]), logits
