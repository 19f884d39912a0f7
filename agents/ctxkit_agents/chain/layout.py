"""Layout: how a source is divided among workers, and what the chain costs at most; solved from window and account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

from ctxkit.context import Amounts, Run, fit
from ctxkit.context.budget import Budget
from ctxkit.context.limits import METERS
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn
from ctxkit.protocols import Counter, Model
from ctxkit_agents.chain.prompts import WorkerPrompts, manager_parts, tokens_of
from ctxkit_agents.chain.source import Chunk, Source
from ctxkit_agents.chain.split import split

Order = Literal["forward", "backward", "tree", "vote"]

SEAM_TOKENS = 8
"""More than the tokens of a text grow where it is put between others."""

LEAST_UNIT_TOKENS = 32
"""Units are not made smaller than this to save tokens."""

PATHS = 3
"""Chains that vote."""


@dataclass(frozen=True)
class Layout:
    """prompts: with the units that can be paid for. chunks: in the order of the source.

    readings, manager: the most that reading each chunk costs, and an answer. others: mergers, and other chains.
    """

    prompts: WorkerPrompts
    chunks: tuple[Chunk, ...]
    readings: tuple[Amounts, ...]
    manager: Amounts
    others: tuple[Amounts, ...] = ()

    @property
    def needed(self) -> Amounts:
        """The most that everything costs."""
        return total([*self.readings, self.manager, *self.others])


@dataclass(frozen=True)
class WorkerRoom:
    """The workers' window and counter. handed: a worker is handed the unit of the one before it."""

    counter: Counter
    window_tokens: int
    handed: bool

    def chunks(self, source: Source, prompts: WorkerPrompts) -> tuple[Chunk, ...]:
        """The fewest chunks that fit with everything else, each counted in its whole prompt.

        Raises BudgetInfeasible where the window has no room for any text.
        """
        limit = self.window_tokens - prompts.answer_tokens - self._unit(prompts)
        base = tokens_of(prompts.reading("", ""), self.counter)
        room = limit - base
        while room > 0:
            cuts = split(source.text, source.bounds, room, self.counter)
            chunks = tuple(self._chunk(source, number, *cut) for number, cut in enumerate(pairwise(cuts), 1))
            over = max(self._alone(source, prompts, chunk) for chunk in chunks) - limit
            if over <= 0:
                return chunks
            room -= over
        raise self._infeasible(base, prompts)

    def cost(self, source: Source, prompts: WorkerPrompts, chunk: Chunk) -> Amounts:
        """The most that reading the chunk costs."""
        return call(self._alone(source, prompts, chunk) + self._unit(prompts), prompts.answer_tokens)

    def merging(self, prompts: WorkerPrompts, units: int) -> Amounts:
        """The most that merging so many units costs. Raises BudgetInfeasible where they do not fit into the window."""
        base = tokens_of(prompts.merging([""] * units), self.counter)
        tokens_in = base + units * (prompts.unit_tokens + SEAM_TOKENS)
        if tokens_in + prompts.unit_tokens > self.window_tokens:
            raise self._infeasible(tokens_in, prompts)
        return call(tokens_in, prompts.unit_tokens)

    def _alone(self, source: Source, prompts: WorkerPrompts, chunk: Chunk) -> int:
        return tokens_of(prompts.reading(source.text[chunk.start : chunk.end], ""), self.counter)

    def _unit(self, prompts: WorkerPrompts) -> int:
        return prompts.unit_tokens + SEAM_TOKENS if self.handed else 0

    def _chunk(self, source: Source, number: int, start: int, end: int) -> Chunk:
        return Chunk(number, start, end, source.spans(start, end), self.counter.count(source.text[start:end]))

    def _infeasible(self, base: int, prompts: WorkerPrompts) -> BudgetInfeasible:
        handed = self._unit(prompts)
        minimum = base + handed + prompts.answer_tokens + 1
        return BudgetInfeasible(
            f"a worker's window of {self.window_tokens:,} tokens has no room for any text: its prompt takes {base:,}, "
            f"the unit it is handed {handed:,} and its answer {prompts.answer_tokens:,}. Raise `worker_window_tokens` "
            f"to {minimum:,} at least, or lower `unit_tokens` and `quote_tokens`.",
            minimum=minimum,
            window_tokens=self.window_tokens,
            reserve_tokens=prompts.answer_tokens,
            by_part={"prompt": base, "unit": handed},
        )


@dataclass(frozen=True)
class ManagerRoom:
    """The manager's window, and the most that evidence and answer may take of it."""

    model: Model
    window_tokens: int
    evidence_tokens: int
    answer_tokens: int

    @property
    def ballot_tokens(self) -> int:
        """Of the answers that it decides between."""
        return PATHS * (self.answer_tokens + SEAM_TOKENS)

    def cost(self, question: str, unit_tokens: int, *, decide: bool = False) -> Amounts:
        """The most that an answer costs. Raises BudgetInfeasible where not even the question fits."""
        limit = self.window_tokens - self.answer_tokens
        parts = manager_parts(question, "x", (), decide=decide)
        base = fit(parts, budget=Budget(self.window_tokens, self.answer_tokens), counter=self.model.counter)
        tokens_in = base.prompt_tokens + unit_tokens + self.evidence_tokens + 2 * SEAM_TOKENS
        return call(min(tokens_in, limit), self.answer_tokens)


def smaller(prompts: WorkerPrompts) -> Iterator[WorkerPrompts]:
    """The prompts, and such with units of half the size, again and again."""
    unit = prompts.unit_tokens
    while True:
        yield prompts.with_units_of(unit)
        if unit <= LEAST_UNIT_TOKENS:
            return
        unit = max(LEAST_UNIT_TOKENS, unit // 2)


def affordable(layouts: Iterable[Layout], run: Run) -> Layout:
    """The first that the run can pay for. Raises BudgetOverdrawn where it cannot even pay for the last."""
    refusal: BudgetOverdrawn | None = None
    for layout in layouts:
        refusal = _refusal(layout, run)
        if refusal is None:
            return layout
    raise refusal or ValueError("`layouts` must not be empty")


def _refusal(layout: Layout, run: Run) -> BudgetOverdrawn | None:
    left = run.check_open("pay for a chain").left
    for meter in METERS:
        needed, there = getattr(layout.needed, meter), getattr(left, meter)
        if there is not None and needed > there:
            return BudgetOverdrawn(
                f"`{meter}` of {run.name!r}: the chain of {len(layout.chunks):,} workers may need {needed:,} with "
                f"units of {layout.prompts.unit_tokens:,} tokens, and {there:,} are left. Raise the limit, give a "
                "shorter source, or let an ExtractiveWorker read.",
                run=run.name,
                limit=meter,
                needed=needed,
                left=there,
            )
    return None


def merges(units: int, at_once: int) -> list[int]:
    """How many units each merger of a tree gets, level by level.

    >>> merges(5, 2)
    [2, 2, 2, 2]
    """
    found: list[int] = []
    while units > 1:
        groups = [min(at_once, units - start) for start in range(0, units, at_once)]
        found += [size for size in groups if size > 1]
        units = len(groups)
    return found


def call(tokens_in: int, tokens_out: int) -> Amounts:
    return Amounts(tokens_in + tokens_out, tokens_in, tokens_out, 1)


def total(amounts: Iterable[Amounts]) -> Amounts:
    listed = list(amounts)
    return Amounts(**{one.name: sum(getattr(amount, one.name) for amount in listed) for one in fields(Amounts)})
