"""InfLLM: whole blocks of a long past, by a few of their keys, all seen from one distance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ctxkit.models.local.policies.base import Observed, View
from ctxkit.models.local.policies.selector import Selector, largest, tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


@dataclass(frozen=True)
class InfLLM(Selector):
    """Blocks whose representative keys meet the mean query of a pass, one choice for all heads (Xiao et al. 2024,
    arXiv 2402.04617).

    blocks: how many are shown, of `block_tokens` each. Each is represented by the mean of the `representatives` keys
    that had the most attention while they were among the last `recent`. What left those but fills no block is seen.
    exact: all tokens farther away than `recent` are seen at that distance, each by a turn of its own, as in the
    authors' code; else runs within a page are, in their order, which takes a sixteenth of the turns. Within a pass of
    many queries the first says what is farther away.
    """

    blocks: int = 16
    block_tokens: int = 128
    representatives: int = 4
    sinks: int = 128
    recent: int = 4096
    exact: bool = True
    needs = frozenset({"attention"})
    places = True

    def observe(self, seen: Observed) -> Tensor:
        near = seen.queries[:, None] - seen.positions < self.recent
        mass = seen.probabilities * torch.from_numpy(near).to(seen.probabilities)
        return seen.before + mass.sum((1, 2))

    def represent(self, keys: Tensor, scores: Tensor) -> Tensor:
        best = scores.topk(min(self.representatives, self.block_tokens), dim=2).indices
        return keys.gather(2, best[..., None].expand(-1, -1, -1, keys.shape[-1])).mean(2)

    def probe(self, look: Look) -> Tensor:
        """float32 [rows, dims], the queries at one distance, summed over a KV head's group."""
        return look.standing(self.recent).mean(2).sum(1)

    def budget(self, look: Look, scores: Tensor) -> int:
        """How many blocks are shown. scores: float32 [blocks]."""
        return self.blocks

    def choose(self, look: Look) -> Tensor | None:
        candidates = len(look.positions)
        if candidates < self.block_tokens:
            return None
        scores = torch.einsum("rd,rbd->b", self.probe(look), look.summaries(self, self.block_tokens, rotated=False))
        return tokens_of(largest(scores[None], self.budget(look, scores)), self.block_tokens, candidates)

    def place(self, view: View, first_query: int, label: int) -> View:
        is_far = first_query - view.runs.position >= self.recent
        far = view.at(is_far).single() if self.exact else view.at(is_far)
        nearer = np.maximum(first_query - far.runs.position - self.recent, 0)
        held = replace(far, gap=nearer, hold=np.maximum(far.runs.position + self.recent, first_query))
        return held.then(view.at(~is_far))
