"""LM-Infinite: attention sinks at a bounded distance, and a sliding window."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.models.local.policies.base import Policy, Reach, View


@dataclass(frozen=True)
class LMInfinite(Policy):
    """A lambda-shaped mask and a ceiling on distances (Han et al. 2023, arXiv 2308.16137).

    sinks: first tokens that are always seen. recent: last tokens that a query sees, its own included. limit: the
    largest distance at which a sink is seen; `recent` by default.

    Every sink behind the ceiling stands at the same distance, `limit`, as the paper's un-rotated keys do; StreamingLLM
    keeps them one behind the other. Nothing outside is seen again.
    """

    sinks: int = 10
    recent: int = 1014
    limit: int | None = None
    places = True

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.recent < 1:
            raise ValueError(f"`sinks` must be at least 0 and `recent` 1, got {self.sinks!r} and {self.recent!r}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"`limit` must be at least 1, got {self.limit!r}")

    def reach(self, label: int) -> Reach:
        return Reach(self.sinks, self.recent)

    def place(self, view: View, first_query: int, label: int) -> View:
        return view.clamped(view.runs.position < self.sinks, self.limit or self.recent)
