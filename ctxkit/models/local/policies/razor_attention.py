"""RazorAttention: heads that retrieve see all; the others sinks, a window and one token for what is between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Policy, Reach

if TYPE_CHECKING:
    from ctxkit.models.local.adapter import ModelShape
    from ctxkit.models.local.profile import HeadProfile


@dataclass(frozen=True)
class RazorAttention(Policy):
    """Retrieval heads keep all, the others little (Tang et al. 2024, arXiv 2407.15891).

    profile: of this model. echo_share, induction_share: of all heads, those that retrieve; a KV head does if any of its
    query heads does. sinks, recent: what the others see, the paper's `recent` being a fifth of the prompt and at least
    4,000. compensates: they see the tokens between as one, the mean, that weighs as many.
    """

    profile: HeadProfile
    echo_share: float = 0.01
    induction_share: float = 0.14
    sinks: int = 4
    recent: int = 1020
    compensates: bool = True

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.recent < 1:
            raise ValueError(f"`sinks` must be at least 0 and `recent` 1, got {self.sinks!r} and {self.recent!r}")

    def plan(self, shape: ModelShape) -> Array:
        return self.profile.checked(shape).retrieval_heads(shape.kv_heads, self.echo_share, self.induction_share) * 1

    def reach(self, label: int) -> Reach | None:
        return None if label else Reach(self.sinks, self.recent)
