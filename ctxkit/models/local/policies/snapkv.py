"""SnapKV: what the end of a prompt attended to stays of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Kept, Observed, Policy
from ctxkit.models.local.policies.ranking import pooled, with_best

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SnapKV(Policy):
    """Once a prompt is read, each KV head keeps what its last queries saw most (Li et al. 2024, arXiv 2404.14469).

    keep_tokens: kept per KV head, the window included. window: the prompt's last tokens; they are kept, and their
        queries' probabilities, summed over the heads of a group, are the scores of all tokens before them. pool: a
        score is taken together with its neighbours', this many in all (odd), by `pooling`.

    Tokens are seen where they stand. Everything after the prompt is kept until the next prompt is read, whose window
    chooses among all that is stored.
    """

    keep_tokens: int = 1024
    window: int = 64
    pool: int = 5
    pooling: Literal["average", "max"] = "average"
    scope = "kv_head"
    needs = frozenset({"prompt"})

    def __post_init__(self) -> None:
        if not 1 <= self.window <= self.keep_tokens or self.pool < 1 or self.pool % 2 == 0:
            raise ValueError(f"`window` must be in [1, keep_tokens] and `pool` odd and above 0, got {self!r}")

    def observe(self, seen: Observed) -> Tensor:
        follows = seen.state.get("next") == seen.queries[0]  # else another prompt's window begins here
        seen.state["next"] = int(seen.queries[-1]) + 1
        return self.joined(seen.before, seen.probabilities) if follows else self.joined(None, seen.probabilities)

    def joined(self, before: Tensor | None, probabilities: Tensor) -> Tensor:
        """The scores [rows, tokens] after more queries of one window: [rows, heads in a group, queries, tokens]."""
        found = probabilities.sum((1, 2))
        return found if before is None else before + found

    def retain(self, kept: Kept) -> Array | None:
        if kept.moment != "prompt" or kept.scores is None or len(kept.positions) <= self.keep_tokens:
            return None
        window = kept.positions >= kept.length - self.window
        scores = np.zeros_like(kept.scores)
        scores[~window] = pooled(kept.scores[~window], self.pool, self.pooling)
        return with_best(window, scores, self.keep_tokens)
