"""Budget: how many tokens there are, and who may have how many of them.

`Budget` is the window of one model call. `Limits`, `Amounts` and `RunReport` are the numbers of a whole run, `Account`
the arithmetic of one of its meters; the run itself, which moves, is in `ledger`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from ctxkit.context.part import KINDS, Kind
from ctxkit.errors import BudgetError, BudgetOverdrawn

if TYPE_CHECKING:
    from ctxkit.context.ledger import Run, Ticket

Overdraft = Literal["raise", "degrade"]
Meter = Literal["tokens", "tokens_in", "tokens_out", "calls"]
TOKEN_METERS: tuple[Meter, ...] = ("tokens", "tokens_in", "tokens_out")
METERS: tuple[Meter, ...] = get_args(Meter)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a whole run, children included, may use; None is no limit.

    tokens: prompts and answers together. tokens_in: prompts. tokens_out: answers. calls: model calls.
    depth: how many generations of children may hang below the run; 0 is none.

    Raises BudgetError for a negative or broken number.
    """

    tokens: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    calls: int | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        for name in (*METERS, "depth"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))

    def __str__(self) -> str:
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return ", ".join(f"{name} {n:,}" for name, n in said.items() if n is not None) or "no limit"


@dataclass(frozen=True, slots=True)
class Amounts:
    """One number per meter. `tokens` is a meter of its own: a grant in it fixes neither of the others."""

    tokens: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 0


@dataclass(frozen=True)
class RunReport:
    """A run and its children at one moment. `str()` is a table, `to_dict()` goes into JSON.

    spent: by the run and everything below it. own_spent: by its own calls.
    reserved: by its own calls in flight. lent: promised to children and not spent by them yet.
    overdrawn: how far it stands beyond what it was allowed, because replies took more than their calls reserved.
    left: what it could still reserve now, borrowing included.
    occupancy_tokens, peak_occupancy_tokens: in its own window now, and at most so far.
    """

    name: str
    closed: bool
    limits: Limits
    spent: Amounts
    own_spent: Amounts
    reserved: Amounts
    lent: Amounts
    overdrawn: Amounts
    left: Limits
    occupancy_tokens: int
    peak_occupancy_tokens: int
    children: tuple[RunReport, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        head = ("run", "in", "out", "calls", "reserved", "lent", "window", "peak", "left")
        rows = [head, *self._rows(0)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(_table_line(row, widths) for row in rows)

    def _rows(self, depth: int) -> Iterator[tuple[str, ...]]:
        numbers = (
            self.spent.tokens_in,
            self.spent.tokens_out,
            self.spent.calls,
            self.reserved.tokens,
            self.lent.tokens,
            self.occupancy_tokens,
            self.peak_occupancy_tokens,
        )
        left = "closed" if self.closed else str(self.left)
        yield ("  " * depth + self.name, *(f"{n:,}" for n in numbers), left)
        for child in self.children:
            yield from child._rows(depth + 1)


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


class Scope:
    """Something that `with`, `async with` or `close()` ends; closing again does nothing, and closing never waits."""

    __slots__ = ()

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


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


def check_count(name: str, value: int, *, least: int = 0) -> None:
    """Raise BudgetError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BudgetError(f"`{name}` must be a whole number of at least {least}, got {value!r}")


def check_window(run: str, tokens_in: int, tokens_out: int, window_tokens: int | None) -> None:
    if window_tokens is not None and tokens_in + tokens_out > window_tokens:
        left = max(0, window_tokens - tokens_in)
        raise BudgetOverdrawn(
            f"a call of {run!r} wants {tokens_in:,} tokens in and {tokens_out:,} out of a window of {window_tokens:,}. "
            + (f"Ask for at most {left:,} out." if left else "Fit a smaller prompt."),
            run=run,
            limit="window_tokens",
            needed=tokens_in + tokens_out,
            left=left,
        )


def check_grant(share: float | None, tokens: int | None, limits: Limits | None) -> None:
    if (share is None) == (tokens is None):
        raise BudgetError(f"give a child either `share` or `tokens`, got share={share!r} and tokens={tokens!r}")
    if share is not None and not 0 < share <= 1:
        raise BudgetError(f"`share` must be in (0, 1], got {share!r}")
    if tokens is not None:
        check_count("tokens", tokens, least=1)
        if limits is not None and limits.tokens is not None and limits.tokens < tokens:
            raise BudgetError(f"the child's grant of {tokens:,} tokens is above its own limit of {limits.tokens:,}")


def _least(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)


def _table_line(row: tuple[str, ...], widths: list[int]) -> str:
    first, *numbers, last = row
    return "  ".join([first.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=False)), last])
