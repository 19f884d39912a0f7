"""Combine: what happens at a place where the writer asks the helper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ctxkit_agents.collaboration.routers import Router
from ctxkit_agents.collaboration.side import Look, Sides

HELPER, WRITER = 1, 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that was added. author: `WRITER` or `HELPER`. tokens: of the writer's. differs: as `Seen` says."""

    author: int
    text: str
    tokens: int
    why: str
    ends: bool = False
    differs: bool | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One place where the helper is asked.

    look: what the writer would have written; None where nobody looked. room: tokens that the answer may still have.
    """

    sides: Sides
    router: Router
    look: Look | None
    room: int


class Combine(ABC):
    """How two models write on together. Both sides hold the new text afterwards.

    same_tokens: it needs one tokenizer for all. lasting: the helper writes all the rest. others: models besides.
    """

    same_tokens: ClassVar[bool] = False
    lasting: ClassVar[bool] = False

    @property
    def others(self) -> tuple[Any, ...]:
        return ()

    @abstractmethod
    def write(self, turn: Turn) -> list[Piece]:
        """Adds at least one token or ends the answer. Raises AllowanceSpent."""

    def most_written(self, max_tokens: int) -> tuple[int, int]:
        """The most tokens that writer and helper write, beyond what the writer writes alone, in such an answer."""
        return 0, max_tokens

    def settings(self) -> str:
        """Equal for what does the same, for checkpoints."""
        return repr(self)
