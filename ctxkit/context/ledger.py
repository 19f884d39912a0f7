"""The ledger of an agent run: who may spend how many tokens, who has, and what stands in whose window.

A `Run` is a node of a tree. Per meter (tokens in and out together, tokens in, tokens out, calls) it holds an amount
and divides it into what it spent, what its calls in flight reserve, what it lent to its children, and what is free. A
child's holding is lent by its parent, so no token is promised twice. Spend only grows; occupancy, what stands in a
window now, comes and goes; neither is ever derived from the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, get_args

from ctxkit.context.account import Account
from ctxkit.context.limits import (
    METERS,
    TOKEN_METERS,
    Amounts,
    Limits,
    Meter,
    Overdraft,
    RunReport,
    check_count,
    check_grant,
    check_window,
)
from ctxkit.context.scope import Scope
from ctxkit.context.tree_lock import TreeLock
from ctxkit.errors import BudgetClosed, BudgetError, BudgetOverdrawn, CtxkitError
from ctxkit.protocols import Reply


class Ticket(Scope):
    """The reservation of one model call. Ask the model for at most `tokens_out`, then `settle` with the reply.

    tokens_in, tokens_out: what is reserved. asked_tokens_out: what was asked for; a ticket that got less is `degraded`.
    Leaving the `with` block without `settle` (an error, a cancelled task) gives everything back, the call included.
    """

    __slots__ = ("_ended", "asked_tokens_out", "run", "tokens_in", "tokens_out")

    def __init__(self, run: Run, tokens_in: int, tokens_out: int, asked_tokens_out: int) -> None:
        self.run = run
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.asked_tokens_out = asked_tokens_out
        self._ended = ""

    @property
    def degraded(self) -> bool:
        return self.tokens_out < self.asked_tokens_out

    def settle(self, reply: Reply) -> None:
        """Book what the call took, and give the rest of the reservation back.

        What it took beyond the reservation is drawn from the run like a new reservation; what cannot be had is booked
        all the same (`overdrawn` in the report), because it is spent. The policy "raise" then raises BudgetOverdrawn,
        after the booking. Raises BudgetClosed when the ticket has been settled or cancelled, BudgetError for a
        negative count.
        """
        check_count("reply.prompt_tokens", reply.prompt_tokens)
        check_count("reply.completion_tokens", reply.completion_tokens)
        taken = _per_meter(reply.prompt_tokens, reply.completion_tokens)
        if refusal := self.run._lock.do(partial(self.run._settle, self, taken)):
            raise refusal

    def cancel(self) -> None:
        """Give the whole reservation back: no call was made. Does nothing when the ticket has ended."""
        self.run._lock.do(partial(self.run._cancel, self))

    close = cancel

    def __repr__(self) -> str:
        state = self._ended or "open"
        return f"Ticket({self.run.name!r}, tokens_in={self.tokens_in}, tokens_out={self.tokens_out}, {state})"


class Standing(Scope):
    """Tokens that stand in a run's window until they are released."""

    __slots__ = ("_released", "run", "tokens")

    def __init__(self, run: Run, tokens: int) -> None:
        self.run = run
        self.tokens = tokens
        self._released = False

    def release(self) -> None:
        """They stand there no more. Does nothing the second time, or when the run is closed."""
        self.run._lock.do(partial(self.run._release, self))

    close = release


class Run(Scope):
    """One agent's account in the tree of a whole run. `Budget(..., run=Run(Limits(tokens=50_000)))` starts a tree.

    limits: of this run and everything below it.
    overdraft: what happens when a call asks for more than there is. "raise": BudgetOverdrawn. "degrade": the call gets
        fewer output tokens, as long as there is one. Children inherit it unless they say otherwise.
    name: stands in reports and errors.
    occupancy, peak_occupancy: tokens in its own window now, and at most at once. closed: it ended. Read only.

    Every method is safe under threads and in coroutines: the tree has one lock, held for some arithmetic, never for a
    wait or a call to foreign code.
    """

    def __init__(self, limits: Limits | None = None, *, overdraft: Overdraft = "raise", name: str = "run") -> None:
        if overdraft not in get_args(Overdraft):
            raise BudgetError(f'`overdraft` must be "raise" or "degrade", got {overdraft!r}')
        self.name = name
        self.limits = limits or Limits()
        self.overdraft: Overdraft = overdraft
        self.parent: Run | None = None
        self.depth = 0
        self._lock = TreeLock()
        self.closed = False
        self._children: list[Run] = []
        self.occupancy = self.peak_occupancy = 0
        self._accounts = {meter: Account(name, getattr(self.limits, meter)) for meter in METERS}

    def child(
        self,
        *,
        share: float | None = None,
        tokens: int | None = None,
        limits: Limits | None = None,
        borrow: bool = True,
        overdraft: Overdraft | None = None,
        name: str = "",
    ) -> Run:
        """A run below this one, with a grant that this one cannot promise to anybody else.

        share: in (0, 1], of what this run has free now, in each token meter that it has a limit or a grant in. For
            equal parts to n children give `tokens`, or shares of 1/n, 1/(n-1), ... 1.
        tokens: the grant, in and out together.
        limits: the most that the child may use, borrowed tokens included.
        borrow: the child may go beyond its grant as far as its parent, and their parents, have free. Without, the
            grant is also its limit. Calls, and token meters without a grant, are always drawn from the parent as used.

        Raises BudgetError for bad numbers, BudgetClosed when this run is closed, BudgetOverdrawn when the depth or the
        grant cannot be had ("degrade": when not one token of it can).
        """
        check_grant(share, tokens, limits)
        child = Run(limits, overdraft=overdraft or self.overdraft, name=name)
        with self._lock:
            self.check_open("have a child")
            self._check_depth()
            if not name:
                child.name = f"{self.name}.{len(self._children) + 1}"
            grants = self._grant(tokens) if tokens is not None else self._shares(share or 0, child.limits)
            child._join(self, grants, borrow)
        return child

    def _join(self, parent: Run, grants: Mapping[Meter, int], borrow: bool) -> None:
        self.parent, self.depth, self._lock = parent, parent.depth + 1, parent._lock
        self._accounts = {
            meter: Account(self.name, getattr(self.limits, meter), parent._accounts[meter], grants.get(meter), borrow)
            for meter in METERS
        }
        parent._children.append(self)

    def _check_depth(self) -> None:
        for run in self._line():
            if run.limits.depth is not None and self.depth - run.depth >= run.limits.depth:
                deep = self.depth - run.depth + 1
                raise BudgetOverdrawn(
                    f"a child of {self.name!r} would stand {deep} below {run.name!r}, and its limit is `depth` "
                    f"{run.limits.depth}. Let {self.name!r} do the work itself, or raise the limit.",
                    run=run.name,
                    limit="depth",
                    needed=deep,
                    left=0,
                )

    def _grant(self, tokens: int) -> dict[Meter, int]:
        if self.overdraft == "degrade":
            tokens = max(1, int(min(tokens, self._accounts["tokens"].available())))
        grants: dict[Meter, int] = {"tokens": tokens}
        self._check("a child of it asks for", grants)
        return grants

    def _shares(self, share: float, limits: Limits) -> dict[Meter, int]:
        granted = [meter for meter in TOKEN_METERS if self._accounts[meter].bounded]
        if not granted:
            raise BudgetError(f"{self.name!r} has no token limit to have a share of; give the child `tokens` instead")
        shares: dict[Meter, int] = {}
        for meter in granted:
            shares[meter] = max(1, math.floor(max(0, self._accounts[meter].free) * share))
            cap = getattr(limits, meter)
            shares[meter] = shares[meter] if cap is None else min(cap, shares[meter])
        self._check("a child of it asks for", shares)
        return shares

    def close(self) -> None:
        """End the run and everything below it: what is free goes back to the parent, once; the windows are empty.

        A call in flight keeps what it reserved, and gives the rest back when it is settled or cancelled.
        """
        self._lock.do(self._close)

    def _close(self) -> None:
        for run in self._subtree():
            run.closed, run.occupancy = True, 0
            for account in run._accounts.values():
                account.retire()

    def reserve(self, *, tokens_in: int, tokens_out: int, window_tokens: int | None = None) -> Ticket:
        """Set aside what one call may take, and count the call.

        tokens_in: of the prompt. tokens_out: the most that the answer may have; 0 for a call without an answer.
        window_tokens: the most for this call, in and out together.

        Under "degrade" the ticket's `tokens_out` can be smaller, never 0: give it to `Sampling.max_tokens`.
        Raises BudgetOverdrawn when it cannot be had, BudgetClosed when the run is closed, BudgetError for bad numbers.
        """
        check_count("tokens_in", tokens_in)
        check_count("tokens_out", tokens_out)
        with self._lock:
            self.check_open("reserve a call")
            granted = tokens_out
            if self.overdraft == "degrade" and tokens_out:
                granted = max(1, self._affordable_out(tokens_in, tokens_out, window_tokens))
            check_window(self.name, tokens_in, granted, window_tokens)
            self._check("the call needs", _per_meter(tokens_in, granted))
            for meter, amount in _per_meter(tokens_in, granted).items():
                self._accounts[meter].reserve(amount)
        return Ticket(self, tokens_in, granted, tokens_out)

    def _affordable_out(self, tokens_in: int, tokens_out: int, window_tokens: int | None) -> int:
        window = math.inf if window_tokens is None else window_tokens
        both = min(window, self._accounts["tokens"].available()) - tokens_in
        return int(min(tokens_out, both, self._accounts["tokens_out"].available()))

    def _settle(self, ticket: Ticket, taken: Mapping[Meter, int]) -> CtxkitError | None:
        if ticket._ended:
            return BudgetClosed(f"{ticket!r} has ended; reserve a ticket per call and settle it once")
        ticket._ended = "settled"
        reserved = _per_meter(ticket.tokens_in, ticket.tokens_out)
        excess = {meter: taken[meter] - reserved[meter] for meter in METERS}
        refusal = self._refusal("a reply took beyond its reservation", excess)
        for meter in METERS:
            self._accounts[meter].settle(reserved[meter], taken[meter])
        return refusal if self.overdraft == "raise" else None

    def _cancel(self, ticket: Ticket) -> None:
        if ticket._ended:
            return
        ticket._ended = "cancelled"
        for meter, amount in _per_meter(ticket.tokens_in, ticket.tokens_out).items():
            self._accounts[meter].unreserve(amount)

    def occupy(self, tokens: int) -> Standing:
        """`tokens` more stand in this run's window, until the answer of this call is released or leaves its `with`.

        Costs nothing and limits nothing: one prompt of 1,000 tokens over ten calls spends 10,000 and occupies 1,000.
        Raises BudgetClosed when the run is closed, BudgetError for a negative number.
        """
        check_count("tokens", tokens)
        with self._lock:
            self.check_open("occupy its window")
            self.occupancy += tokens
            self.peak_occupancy = max(self.peak_occupancy, self.occupancy)
        return Standing(self, tokens)

    def _release(self, standing: Standing) -> None:
        if not standing._released and not self.closed:
            self.occupancy -= standing.tokens
        standing._released = True

    @property
    def spent(self) -> Amounts:
        """What this run and everything below it spent so far."""
        with self._lock:
            return self._amounts("spent")

    @property
    def left(self) -> Limits:
        """What the run could reserve now, borrowing included; None where nothing limits it, 0 when it is closed."""
        with self._lock:
            return self._left()

    def report(self) -> RunReport:
        """The run and everything below it, at one moment."""
        with self._lock:
            return self._report()

    def _left(self) -> Limits:
        if self.closed:
            return Limits(0, 0, 0, 0, 0)
        left = {meter: account.available() for meter, account in self._accounts.items()}
        deep = [run.limits.depth - self.depth + run.depth for run in self._line() if run.limits.depth is not None]
        return Limits(
            **{meter: None if n == math.inf else int(n) for meter, n in left.items()}, depth=min(deep, default=None)
        )

    def _report(self) -> RunReport:
        return RunReport(
            name=self.name,
            closed=self.closed,
            limits=self.limits,
            spent=self._amounts("spent"),
            own_spent=self._amounts("own"),
            reserved=self._amounts("reserved"),
            lent=self._amounts("lent"),
            overdrawn=self._amounts("overdrawn"),
            left=self._left(),
            occupancy_tokens=self.occupancy,
            peak_occupancy_tokens=self.peak_occupancy,
            children=tuple(child._report() for child in self._children),
        )

    def _amounts(self, name: str) -> Amounts:
        return Amounts(**{meter: int(getattr(account, name)) for meter, account in self._accounts.items()})

    def _line(self) -> Iterator[Run]:
        run: Run | None = self
        while run is not None:
            yield run
            run = run.parent

    def _subtree(self) -> Iterator[Run]:
        """This run and all below it, parents before their children."""
        todo = [self]
        while todo:
            run = todo.pop()
            yield run
            todo.extend(run._children)

    def check_open(self, what: str) -> Run:
        """Raise BudgetClosed, saying that the run cannot do `what`, when it is closed."""
        if self.closed:
            raise BudgetClosed(f"{self.name!r} is closed and cannot {what}; make a new child of an open run")
        return self

    def _check(self, what: str, needs: Mapping[Meter, int]) -> None:
        if refusal := self._refusal(what, needs):
            raise refusal

    def _refusal(self, what: str, needs: Mapping[Meter, int]) -> BudgetOverdrawn | None:
        for meter, amount in needs.items():
            blocker = self._accounts[meter].blocker(amount)
            if blocker is not None:
                left = int(self._accounts[meter].available())
                return BudgetOverdrawn(
                    f"`{meter}` of {self.name!r}: {what} {amount:,} and {left:,} can be had. {blocker} "
                    f"Ask for less, close children that are done, or give {blocker.run!r} more.",
                    run=blocker.run,
                    limit=meter,
                    needed=amount,
                    left=left,
                )
        return None

    def __repr__(self) -> str:
        spent = self._accounts["tokens"].spent
        return f"Run({self.name!r}, {self.limits}, {spent:,} tokens spent{', closed' if self.closed else ''})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        return self  # a copy would be a second ledger of the same tokens


def _per_meter(tokens_in: int, tokens_out: int) -> dict[Meter, int]:
    return {"tokens": tokens_in + tokens_out, "tokens_in": tokens_in, "tokens_out": tokens_out, "calls": 1}
