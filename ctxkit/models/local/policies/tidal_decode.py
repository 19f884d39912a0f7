"""TidalDecode: a few layers choose tokens for those behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.models.local.policies.schedules import Layers, Schedule
from ctxkit.models.local.policies.selector import Selector, largest, pooled, vote_of_groups

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


@dataclass(frozen=True)
class TidalDecode(Selector):
    """Full attention in a few layers; the layers behind each see what it attended to most (Yang et al. 2024, arXiv
    2410.05076).

    select_layers: these choose and see everything, as do all layers before the first of them. A KV head's tokens are
    those with the largest attention, summed over its group; the head of the same number in later layers sees them.
    pool: a token has the largest attention of so many neighbours (1: as published). The published layers, 2 and 9 or
    13, are Llama 7B's and 8B's; others must be found for each model. Prompts are read with full attention.
    """

    keep_tokens: int = 256
    sinks: int = 0
    recent: int = 1
    select_layers: tuple[int, ...] = (2, 13)
    pool: int = 1
    decode_only = True

    @property
    def schedule(self) -> Schedule:
        return Layers(at=self.select_layers, full=True)

    def choose(self, look: Look) -> Tensor | None:
        return largest(pooled(vote_of_groups(look), self.pool), self.keep_tokens)
