"""The attention of a pass, shown to the policy that asked for it and to whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.adapter import AttentionCall
from ctxkit.models.local.paging.part import Part
from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Observed, state_of
from ctxkit_kernels.attention import Gathered, chunk_logits

_BLOCK_QUERIES = 128

Watch = Callable[["Watched"], None]


@dataclass(frozen=True)
class Watched:
    """One layer's attention over one track.

    heads: int64 [rows], the KV heads. q: [rows, heads in a group, queries, dims]. lse: float32, as q but for the dims.
    positions: int64 [tokens], the tokens seen by any of the queries, the first of which stands at `first_query`.
    """

    part: Part
    call: AttentionCall
    q: Tensor
    lse: Tensor
    gathered: Gathered
    frequencies: Tensor

    @property
    def layer(self) -> int:
        return self.call.layer

    @property
    def heads(self) -> Array:
        return self.part.heads(self.layer)

    @property
    def first_query(self) -> int:
        return self.part.start

    @property
    def positions(self) -> Array:
        return self.gathered.positions[0].cpu().numpy()

    def logits(self, start: int = 0, end: int | None = None) -> Tensor:
        """float32 [rows, heads in a group, queries start .. end - 1, tokens]; -inf where a token is not seen."""
        how: dict[str, Any] = {"scale": self.call.scale, "softcap": self.call.softcap}
        return chunk_logits(self.q[:, :, start:end], self.first_query + start, self.gathered, self.frequencies, **how)

    def probabilities(self, start: int = 0, end: int | None = None) -> Tensor:
        """As `logits`, after the softmax. Where the model has learned sinks they sum to less than 1."""
        return (self.logits(start, end) - self.lse[:, :, start:end, None]).exp()


def observe(watched: Watched) -> None:
    """Lets the policy update the scores of the tokens seen, a block of queries at a time."""
    part, track = watched.part, watched.part.track
    if track.scores is None:
        track.scores = np.zeros((len(track.members), track.tokens), np.float32)
    rows = track.rows[watched.layer]
    at = np.searchsorted(track.runs.token_positions(), watched.positions)
    state = state_of(part.context.states, (part.policy, track.label, watched.layer, "observed"))
    for start in range(0, part.tokens, _BLOCK_QUERIES):
        end = min(part.tokens, start + _BLOCK_QUERIES)
        logits = watched.logits(start, end)
        seen = Observed(
            layer=watched.layer,
            label=track.label,
            probabilities=(logits - watched.lse[:, :, start:end, None]).exp(),
            logits=logits,
            queries=part.start + np.arange(start, end),
            pass_tokens=part.tokens,
            positions=watched.positions,
            before=torch.from_numpy(track.scores[rows][:, at]).to(logits.device),
            state=state,
        )
        after = part.policy.observe(seen)
        if after is not None:
            track.scores[rows.start : rows.stop, at] = after.cpu().numpy()
