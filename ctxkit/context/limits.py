"""The numbers of a whole run: what it may use, what it used, and which of them are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ctxkit.errors import BudgetError, BudgetOverdrawn

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


def _table_line(row: tuple[str, ...], widths: list[int]) -> str:
    first, *numbers, last = row
    return "  ".join([first.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=False)), last])
