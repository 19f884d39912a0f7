"""Account: the arithmetic of one meter of one run."""

from __future__ import annotations

import math
from collections.abc import Iterator


class Account:
    """One meter of one run. The caller holds the tree's lock.

    held: what the account may use now: own spend + reserved + given to children + free. A root holds its limit, a child
        what its parent gave it. cap: the most it may hold. keep: what it holds on to until it retires, its grant.
    spent: by this account and all below it; own: by this account.

    A child always holds what it uses. What replies took and no rule allowed makes the root's `free` negative.
    """

    __slots__ = ("bounded", "cap", "given", "held", "keep", "own", "parent", "reserved", "run", "spent")

    def __init__(
        self, run: str, limit: int | None, parent: Account | None = None, grant: int | None = None, borrow: bool = True
    ) -> None:
        self.run = run
        self.parent = parent
        self.bounded = (limit if parent is None else grant) is not None
        self.own = self.spent = self.reserved = self.given = 0
        self.cap = math.inf if limit is None else limit
        self.keep = self.held = self.cap if parent is None else 0
        if parent is not None and grant is not None:
            self.cap = self.cap if borrow else min(self.cap, grant)
            self.draw(grant)
            self.keep = grant

    @property
    def used(self) -> int:
        return self.own + self.reserved + self.given

    @property
    def free(self) -> float:
        return self.held - self.used

    @property
    def lent(self) -> int:
        """Given to children and not spent by them."""
        return self.given - (self.spent - self.own)

    @property
    def overdrawn(self) -> float:
        return max(0, self.used - self.cap)

    def available(self) -> float:
        """What can be reserved now: what is free here, and what may be borrowed from above."""
        total: float = 0
        room = math.inf
        for account in self.line():
            here = min(room, max(0, account.free))
            total += here
            if account.parent is not None:
                room = min(room - here, max(0, account.cap - account.held))
        return total

    def blocker(self, amount: int) -> Account | None:
        """The account, here or above, whose rule forbids to make `amount` free here."""
        missing: float = amount
        for account in self.line():
            missing -= max(0, account.free)
            if missing <= 0:
                return None
            if account.parent is None or missing > account.cap - account.held:
                return account
        return None

    def draw(self, amount: int) -> None:
        """Make `amount` free here, borrowing what is missing. Asks no rule: see `blocker`."""
        missing = amount - max(0, self.free)
        account = self
        while missing > 0 and account.parent is not None:
            account.held += missing
            account = account.parent
            account.given += int(missing)
            missing = -account.free

    def reserve(self, amount: int) -> None:
        self.draw(amount)
        self.reserved += amount

    def unreserve(self, amount: int) -> None:
        self.reserved -= amount
        self.give_back()

    def settle(self, reserved: int, taken: int) -> None:
        self.draw(taken - reserved)
        self.own += taken
        for account in self.line():
            account.spent += taken
        self.unreserve(reserved)

    def retire(self) -> None:
        """Hold on to no grant any more."""
        self.keep = 0
        self.give_back()

    def give_back(self) -> None:
        """What is free beyond the grant goes to the parent, and from there on up."""
        for account in self.line():
            surplus = min(account.free, account.held - account.keep)
            if account.parent is None or surplus <= 0:
                return
            account.held -= surplus
            account.parent.given -= int(surplus)

    def line(self) -> Iterator[Account]:
        """This account, its parent, and so on to the root."""
        account: Account | None = self
        while account is not None:
            yield account
            account = account.parent

    def __str__(self) -> str:
        uses = f"{self.spent:,} spent, {self.reserved:,} reserved by calls in flight, {self.lent:,} lent to children"
        return f"{self.run!r} may use {self.cap:,}: {uses}."
