"""Budget: the window of one model call, who may have how many of its tokens, and the run that pays for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ctxkit.context.ledger import Run, Ticket
from ctxkit.context.limits import Limits, Overdraft
from ctxkit.context.part import KINDS, Kind
from ctxkit.context.scope import Scope
from ctxkit.errors import BudgetError, BudgetOverdrawn


@dataclass(frozen=True)
class Budget(Scope):
    """The window of one model call.

    window_tokens: what the model can hold, prompt and answer together.
    reserve_tokens: kept free for the answer.
    floors: tokens that a kind gets before other kinds compete, as far as it has parts that want in and the pinned
        parts leave room.
    caps: the most tokens that a kind may take. Pinned parts count against their kind's cap but are never refused by it.
    run: the account that the call is paid from, in an agent run. Two budgets that differ only in it are equal.

    Raises BudgetError where the numbers contradict each other.
    """

    window_tokens: int
    reserve_tokens: int = 0
    floors: Mapping[Kind, int] = field(default_factory=dict)
    caps: Mapping[Kind, int] = field(default_factory=dict)
    run: Run | None = field(default=None, compare=False)

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

    def child(
        self,
        *,
        share: float | None = None,
        tokens: int | None = None,
        limits: Limits | None = None,
        borrow: bool = True,
        overdraft: Overdraft | None = None,
        name: str = "",
    ) -> Budget:
        """This budget on a child of its run; closing it gives back what it did not use.

        Arguments and errors are those of `Run.child`. Raises BudgetError when the budget has no run.
        """
        run = self._paid_by().child(
            share=share, tokens=tokens, limits=limits, borrow=borrow, overdraft=overdraft, name=name
        )
        return replace(self, run=run)

    def ticket(self, tokens_in: int, tokens_out: int | None = None) -> Ticket:
        """Reserve one call in this window: `tokens_out` is the reserve when not given. See `Run.reserve`."""
        asked = self.reserve_tokens if tokens_out is None else tokens_out
        return self._paid_by().reserve(tokens_in=tokens_in, tokens_out=asked, window_tokens=self.window_tokens)

    def affordable(self) -> Budget:
        """This budget, its window no larger than what the run can pay for now; fit the prompt into that.

        Prompt and reserve keep their proportion when the tokens for both are short, floors theirs to the prompt. It
        promises nothing: another run may be faster, and `ticket` decides.
        Raises BudgetOverdrawn when nothing is left for a prompt, or nothing for an answer that has a reserve, and
        BudgetClosed when the run is closed.
        """
        if self.run is None:
            return self
        left = self.run.check_open("pay for a call").left
        window = _least(self.window_tokens, left.tokens)
        reserve = _least(math.ceil(window * self.reserve_tokens / self.window_tokens), left.tokens_out)
        prompt = _least(min(window - reserve, self.prompt_tokens), left.tokens_in)
        if prompt < 1 or reserve < min(1, self.reserve_tokens) or left.calls == 0:
            raise BudgetOverdrawn(
                f"{self.run.name!r} can pay for no call any more, left: {left}. Close children or raise its limits.",
                run=self.run.name,
                limit="calls" if left.calls == 0 else "tokens_in" if prompt < 1 else "tokens_out",
                needed=1,
                left=0,
            )
        floors = {kind: n * prompt // self.prompt_tokens for kind, n in self.floors.items()}
        return replace(self, window_tokens=prompt + reserve, reserve_tokens=reserve, floors=floors)

    def close(self) -> None:
        """Close the run (see `Run.close`); nothing to do without one."""
        if self.run is not None:
            self.run.close()

    def _paid_by(self) -> Run:
        if self.run is None:
            raise BudgetError("this budget has no run to spend from; make it with `Budget(..., run=Run(Limits(...)))`")
        return self.run


def _least(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)
