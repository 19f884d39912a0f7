"""StreamingLLM: attention sinks and a sliding window."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.models.local.policies.base import Policy, Reach, View


@dataclass(frozen=True)
class StreamingLLM(Policy):
    """The first tokens and the last ones, at their places within this cache (Xiao et al. 2023, arXiv 2309.17453).

    sinks: first tokens that are always seen. recent: last tokens that a query sees, its own included.

    Streams without end in memory of sinks + recent tokens. Nothing outside is seen again.
    """

    sinks: int = 4
    recent: int = 1020
    places = True

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.recent < 1:
            raise ValueError(f"`sinks` must be at least 0 and `recent` 1, got {self.sinks!r} and {self.recent!r}")

    def reach(self, label: int) -> Reach:
        return Reach(self.sinks, self.recent)

    def place(self, view: View, first_query: int, label: int) -> View:
        return view.held(view.runs.position < self.sinks, self.sinks + self.recent - 1)
