"""Budget: how many tokens there are, and who may have how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ctxkit.context.part import KINDS, Kind
from ctxkit.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """The window of one model call.

    window_tokens: what the model can hold, prompt and answer together.
    reserve_tokens: kept free for the answer.
    floors: tokens that a kind gets before other kinds compete, as far as it has parts that want in and the pinned
        parts leave room.
    caps: the most tokens that a kind may take. Pinned parts count against their kind's cap but are never refused by it.

    Raises BudgetError where the numbers contradict each other.
    """

    window_tokens: int
    reserve_tokens: int = 0
    floors: Mapping[Kind, int] = field(default_factory=dict)
    caps: Mapping[Kind, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        window, reserve = self.window_tokens, self.reserve_tokens
        if window < 1:
            raise BudgetError(f"`window_tokens` must be at least 1, got {window!r}")
        if reserve < 0:
            raise BudgetError(f"`reserve_tokens` must be 0 or more, got {reserve!r}")
        if reserve >= window:
            raise BudgetError(
                f"`reserve_tokens` ({reserve:,}) leaves nothing of `window_tokens` ({window:,}) for the prompt; "
                "the reserve is the part of the window kept free for the answer"
            )
        self._check_kinds()

    def _check_kinds(self) -> None:
        for name, limits in (("floors", self.floors), ("caps", self.caps)):
            for kind, tokens in limits.items():
                if kind not in KINDS:
                    raise BudgetError(f"`{name}` names {kind!r}, which is not a kind of part ({', '.join(KINDS)})")
                if tokens < 0:
                    raise BudgetError(f"`{name}[{kind!r}]` must be 0 or more, got {tokens!r}")
        for kind in self.floors.keys() & self.caps.keys():
            if self.floors[kind] > self.caps[kind]:
                raise BudgetError(
                    f"the floor of {kind!r} ({self.floors[kind]:,}) is above its cap ({self.caps[kind]:,})"
                )
        if sum(self.floors.values()) > self.prompt_tokens:
            raise BudgetError(
                f"`floors` promise {sum(self.floors.values()):,} tokens of {self.prompt_tokens:,} "
                f"({self.window_tokens:,} less a reserve of {self.reserve_tokens:,})"
            )

    @property
    def prompt_tokens(self) -> int:
        """What the prompt may take: the window less the reserve."""
        return self.window_tokens - self.reserve_tokens
