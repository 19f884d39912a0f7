"""Selector: a policy that keeps all tokens and shows some of those that are out of reach."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, TypeVar

import torch

from ctxkit.models.local.policies.base import Policy, Reach
from ctxkit.models.local.policies.schedules import Every, Layers, Schedule, Similar

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


S = TypeVar("S", bound="Selector")


class _Window(Policy):
    """Fields that every selector has, in the order that suits it."""

    sinks: int
    recent: int

    def reach(self, label: int) -> Reach:
        return Reach(self.sinks, self.recent)


@dataclass(frozen=True)
class Selector(_Window):
    """`sinks` first and `recent` last tokens are always seen; of the others, what `choose` says. All stay in memory.

    when: a schedule in place of the method's own. Raises ValueError for sizes below 1, `sinks` below 0.
    """

    when: Schedule | None = field(default=None, kw_only=True)
    keeps_all = True
    decode_only = False  # prompts are read with full attention

    def __post_init__(self) -> None:
        for of in fields(self):
            least = 0 if of.name in ("sinks", "dense_layers") else 1
            if of.type == "int" and getattr(self, of.name) < least:
                raise ValueError(f"`{of.name}` must be at least {least}, got {getattr(self, of.name)!r}")

    @property
    def schedule(self) -> Schedule:
        """When this method chooses, unless `when` says otherwise."""
        return Schedule()

    def choose(self, look: Look) -> Tensor | None:
        """As `Policy.select`."""
        raise NotImplementedError

    def select(self, look: Look) -> Tensor | None:
        if self.decode_only and look.queries > 1:
            return None
        return (self.when or self.schedule).select(look, self.choose)


def every(steps: int, selector: S, *, full: bool = False) -> S:
    """The selector, choosing at every `steps`-th token. full: and then seeing everything."""
    return replace(selector, when=Every(steps=steps, full=full))


def similar(cosine: float, selector: S, *, full: bool = False) -> S:
    """The selector, choosing when its query has turned away from the last that chose. full: as `every`."""
    return replace(selector, when=Similar(cosine=cosine, full=full))


def layers(at: tuple[int, ...], selector: S, *, full: bool = False) -> S:
    """The selector, choosing in the layers `at` for those behind them. full: as `every`."""
    return replace(selector, when=Layers(at=at, full=full))


# --- what choices are made of ------------------------------------------------------------------------------------


def pooled(scores: Tensor, width: int) -> Tensor:
    """The largest of `width` neighbours, float32 [rows, n]: what stands beside a wanted token is wanted too."""
    return torch.nn.functional.max_pool1d(scores[:, None], width, stride=1, padding=width // 2)[:, 0, : scores.shape[1]]


def largest(scores: Tensor, count: int) -> Tensor:
    """int64 [rows, count], the numbers of the largest, sorted."""
    return scores.topk(min(count, scores.shape[1]), dim=1).indices.sort(dim=1).values


def tokens_of(blocks: Tensor, size: int, candidates: int) -> Tensor:
    """int64 [rows, n]: the tokens of the blocks, and those behind the last whole block, which no block has."""
    inside = (blocks[..., None] * size + torch.arange(size, device=blocks.device)).flatten(1)
    rest = torch.arange(candidates // size * size, candidates, device=blocks.device)
    return torch.cat([inside, rest.expand(len(blocks), -1)], dim=1)


def vote_of_groups(look: Look) -> Tensor:
    """float32 [rows, candidates]: what the mean query gives to each of them, summed over a KV head's group."""
    return look.logits(look.q.mean(2)).softmax(-1).sum(1)
