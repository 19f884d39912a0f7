"""PersonalContext: everything that is kept of one user, as parts for one answer."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.context import Part
from ctxkit.session import ProfileMemory
from ctxkit.session.profile import SHARE
from ctxkit_agents.personal.standing_instructions import StandingInstructions


@dataclass(frozen=True)
class PersonalContext:
    """A user's standing instructions, and the summary of what is known of them with the few items that matter now.

    memory, key: where it is remembered, and under which key (arXiv 2310.20081; see `ProfileMemory`). The standing
        instructions are the items under "<key>/instructions".
    k: how many items would be retrieved if there were no profile; with one it is a quarter.
    """

    memory: ProfileMemory
    key: str
    k: int = 8

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"`k` must be 0 or more, got {self.k!r}")

    @property
    def instructions(self) -> StandingInstructions:
        """Those that are remembered now, oldest first."""
        return StandingInstructions(self.memory.items(f"{self.key}/instructions"))

    def instruct(self, *texts: str) -> None:
        """Remember standing instructions. Raises ValueError for an empty one."""
        self.memory.add(f"{self.key}/instructions", *texts)

    def parts(self, utterance: str) -> list[Part]:
        """The instructions that hold for the utterance, the profile, and the items that matter; asks no model."""
        known = self.memory.parts(self.key, utterance, k=self.k)
        return [*self.instructions.parts(utterance), *known]

    def find(self, query: str, k: int) -> list[Part]:
        """The profile and about k items, as a source of a `SourcePlanner`."""
        return self.memory.parts(self.key, query, k=k * SHARE)
