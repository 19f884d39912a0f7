"""Recycled attention (RefreshKV): full attention now and then, and what it attended to most in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.models.local.policies.schedules import Every, Schedule, Similar
from ctxkit.models.local.policies.selector import Selector, largest, pooled, vote_of_groups

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


@dataclass(frozen=True)
class Recycled(Selector):
    """Full attention at every `every`-th token; between, the tokens that it attended to most and all newer ones (Xu
    et al. 2024, arXiv 2411.05787).

    Each KV head has its own tokens: those with the largest attention of `pool` neighbours, summed over its group.
    cosine: full attention instead whenever the query's cosine with the last that had it is lower. Prompts are read
    with full attention.
    """

    keep_tokens: int = 2048
    sinks: int = 0
    recent: int = 1
    every: int = 16
    pool: int = 7
    cosine: float | None = None
    decode_only = True

    @property
    def schedule(self) -> Schedule:
        if self.cosine is not None:
            return Similar(cosine=self.cosine, full=True, new=True)
        return Every(steps=self.every, full=True)

    def choose(self, look: Look) -> Tensor | None:
        return largest(pooled(vote_of_groups(look), self.pool), self.keep_tokens)
