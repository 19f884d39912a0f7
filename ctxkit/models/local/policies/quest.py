"""Quest: pages by the largest logit that any of their keys could have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ctxkit.models.local.policies.selector import Selector, largest, tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


@dataclass(frozen=True)
class Quest(Selector):
    """Pages by an upper bound of their logits, from the smallest and largest of each key dimension (Tang et al. 2024,
    arXiv 2406.10774).

    Each KV head shows its own `keep_tokens` // `page` pages: those with the largest bound in any head of its group,
    and what is behind the last whole page. dense_layers: so many first layers see everything. Prompts are read with
    full attention.
    """

    keep_tokens: int = 1024
    sinks: int = 0
    recent: int = 1
    page: int = 16
    dense_layers: int = 2
    decode_only = True

    def represent(self, keys: Tensor, scores: Tensor) -> Tensor:
        return torch.stack([keys.amin(2), keys.amax(2)], dim=2)  # [rows, pages, 2, dims]

    def choose(self, look: Look) -> Tensor | None:
        candidates, pages = len(look.positions), max(1, self.keep_tokens // self.page)
        if look.layer < self.dense_layers or candidates // self.page <= pages:
            return None
        bounds = look.summaries(self, self.page)
        q = look.q.mean(2)  # [rows, heads in a group, dims]
        best = torch.einsum("rgd,rpd->rgp", q.clamp_min(0), bounds[:, :, 1])
        best += torch.einsum("rgd,rpd->rgp", q.clamp_max(0), bounds[:, :, 0])
        return tokens_of(largest(best.amax(1), pages), self.page, candidates)
