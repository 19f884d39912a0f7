"""SirLLM: the tokens that surprised the model stay, from turn to turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Kept, Policy, View
from ctxkit.models.local.policies.ranking import with_best


@dataclass(frozen=True)
class SirLLM(Policy):
    """Sinks, the tokens of most surprisal, and the last ones (Yao et al. 2024, arXiv 2405.12528).

    sinks: first tokens, kept always. entropy_tokens: kept for their surprisal -log p(token | text before it), wherever
        they stand. recent: filled up with the last tokens that are not kept already. decay: what a surprisal is
        multiplied by at every turn's end; below 1 old turns fade.
    slack_tokens: a turn may take this many beyond the three; where it takes more, tokens leave before it ends.

    The same tokens in all layers and heads, seen without holes between them. After a turn at most sinks +
    entropy_tokens + recent are kept, after any pass at most slack_tokens more.
    """

    sinks: int = 4
    entropy_tokens: int = 508
    recent: int = 512
    decay: float = 1.0
    slack_tokens: int = 512
    needs = frozenset({"surprisal"})
    places = True

    def __post_init__(self) -> None:
        sizes = (self.sinks, self.entropy_tokens, self.recent, self.slack_tokens)
        if min(sizes) < 0 or self.budget_tokens < 1 or not 0 <= self.decay <= 1:
            raise ValueError(f"sizes must be 0 or more, not all 0, and `decay` in [0, 1]; got {self!r}")

    @property
    def budget_tokens(self) -> int:
        return self.sinks + self.entropy_tokens + self.recent

    @property
    def most_kept(self) -> int:
        return self.budget_tokens + self.slack_tokens

    def retain(self, kept: Kept) -> Array | None:
        over = len(kept.positions) - self.budget_tokens
        if kept.moment == "prompt" or over <= (self.slack_tokens if kept.moment == "step" else 0):
            return None
        turns = len(kept.turns) - np.searchsorted(kept.turns, kept.positions, side="right")  # ended since each token
        surprising = with_best(np.zeros(len(turns), bool), kept.surprisal * self.decay**turns, self.entropy_tokens)
        return with_best(surprising | (kept.positions < self.sinks), kept.positions, self.budget_tokens)

    def place(self, view: View, first_query: int, label: int) -> View:
        return view.packed(first_query)
