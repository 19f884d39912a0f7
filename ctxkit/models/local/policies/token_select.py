"""TokenSelect: every head votes for tokens, one set per layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.models.local.policies.base import View
from ctxkit.models.local.policies.schedules import Schedule, Similar
from ctxkit.models.local.policies.selector import Selector, largest, pooled, vote_of_groups

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


@dataclass(frozen=True)
class TokenSelect(Selector):
    """The tokens with the largest soft vote of all heads (Wu et al. 2024, arXiv 2411.02886).

    The mean query of a pass meets every candidate; each head's softmax is its vote. pool: a token has the largest vote
    of so many neighbours. reuse_cosine: a layer's set is shown again while its query's cosine with the one that chose
    it is no lower; None: it is chosen in every pass. packed: the tokens are seen as if they followed each other, as
    published; by default they are seen where they stand.
    """

    keep_tokens: int = 2048
    sinks: int = 128
    recent: int = 512
    pool: int = 1
    reuse_cosine: float | None = 0.9
    packed: bool = False

    @property
    def places(self) -> bool:  # type: ignore[override]
        return self.packed

    @property
    def schedule(self) -> Schedule:
        return Schedule() if self.reuse_cosine is None else Similar(cosine=self.reuse_cosine)

    def choose(self, look: Look) -> Tensor | None:
        if len(look.positions) <= self.keep_tokens:
            return None
        return largest(pooled(vote_of_groups(look).sum(0, keepdim=True), self.pool), self.keep_tokens)

    def place(self, view: View, first_query: int, label: int) -> View:
        return view.packed(first_query) if self.packed else view
