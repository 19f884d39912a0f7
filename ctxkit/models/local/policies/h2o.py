"""H2O: the tokens that got the most attention so far stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Kept, Observed, Policy
from ctxkit.models.local.policies.ranking import with_best

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class H2O(Policy):
    """Heavy hitters and the last tokens, for each KV head its own (Zhang et al. 2023, arXiv 2306.14048).

    budget_tokens: kept per KV head after every pass. recent: of these, the last ones; the others are those with the
        largest sum of attention probabilities over all queries so far and all heads of the group.

    A prompt that is read in several passes loses tokens after each. Tokens are seen where they stand. Sums cannot be
    taken back, so a context never goes back to fewer tokens.
    """

    budget_tokens: int = 1024
    recent: int = 512
    scope = "kv_head"
    needs = frozenset({"attention"})

    def __post_init__(self) -> None:
        if not 0 <= self.recent <= self.budget_tokens or self.budget_tokens < 1:
            raise ValueError(f"`recent` must be in [0, budget_tokens] and `budget_tokens` at least 1, got {self!r}")

    def observe(self, seen: Observed) -> Tensor:
        return seen.before + seen.probabilities.sum((1, 2))

    @property
    def most_kept(self) -> int:
        return self.budget_tokens

    def retain(self, kept: Kept) -> Array | None:
        if kept.scores is None or len(kept.positions) <= self.budget_tokens:
            return None
        return with_best(kept.positions >= kept.length - self.recent, kept.scores, self.budget_tokens)
