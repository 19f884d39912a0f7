"""The budget tree: nothing is promised twice, nothing gets lost, and every number adds up."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ctxkit.context.budget import Budget
from ctxkit.context.ledger import Run, Standing, Ticket
from ctxkit.context.limits import METERS, Amounts, Limits, RunReport
from ctxkit.errors import BudgetClosed, BudgetError, BudgetOverdrawn
from ctxkit.protocols import Reply


def reply(tokens_in: int, tokens_out: int) -> Reply:
    return Reply("", "stop", tokens_in, tokens_out, "scripted")


def spend(run: Run, tokens_in: int, tokens_out: int) -> None:
    with run.reserve(tokens_in=tokens_in, tokens_out=tokens_out) as ticket:
        ticket.settle(reply(tokens_in, tokens_out))


def nodes(report: RunReport) -> Iterator[RunReport]:
    yield report
    for child in report.children:
        yield from nodes(child)


def main(tokens: int | None = 1_000, **limits: Any) -> Run:
    return Run(Limits(tokens=tokens, **limits), name="main")


# Calls


def test_a_settled_call_spends_what_the_reply_took_and_returns_the_rest() -> None:
    run = main()
    with run.reserve(tokens_in=100, tokens_out=50) as ticket:
        assert run.left.tokens == 850
        assert run.report().reserved == Amounts(150, 100, 50, 1)
        ticket.settle(reply(90, 20))
    assert run.spent == Amounts(110, 90, 20, 1)
    assert run.left.tokens == 890
    assert run.report().reserved == Amounts()


def test_a_crash_or_a_cancel_returns_the_whole_reservation() -> None:
    run = main(calls=1)
    with pytest.raises(RuntimeError), run.reserve(tokens_in=100, tokens_out=50):
        raise RuntimeError
    run.reserve(tokens_in=100, tokens_out=50).cancel()
    assert run.spent == Amounts()
    assert run.left == Limits(tokens=1_000, calls=1)


def test_a_ticket_ends_once() -> None:
    run = main()
    settled, cancelled = (run.reserve(tokens_in=10, tokens_out=10) for _ in range(2))
    settled.settle(reply(10, 10))
    settled.cancel()
    cancelled.cancel()
    cancelled.cancel()
    for ticket in (settled, cancelled):
        with pytest.raises(BudgetClosed, match="has ended"):
            ticket.settle(reply(10, 10))
    assert run.spent.tokens == 20
    assert run.left.tokens == 980


@pytest.mark.parametrize(
    ("limits", "limit", "needed", "left"),
    [
        (Limits(tokens=149), "tokens", 150, 149),
        (Limits(tokens_in=99), "tokens_in", 100, 99),
        (Limits(tokens_out=49), "tokens_out", 50, 49),
        (Limits(calls=0), "calls", 1, 0),
    ],
)
def test_the_error_names_the_run_the_limit_and_the_numbers(limits: Limits, limit: str, needed: int, left: int) -> None:
    run = Run(limits, name="writer")
    with pytest.raises(BudgetOverdrawn, match=f"`{limit}` of 'writer'.*{needed} and {left} can be had") as caught:
        run.reserve(tokens_in=100, tokens_out=50)
    error = caught.value
    assert (error.run, error.limit, error.needed, error.left) == ("writer", limit, needed, left)
    assert run.report().reserved == Amounts()


def test_exactly_the_limit_can_be_reserved() -> None:
    limits = Limits(tokens=150, tokens_in=100, tokens_out=50, calls=1)
    run = Run(limits)
    spend(run, 100, 50)
    assert run.left == Limits(0, 0, 0, 0)


def test_the_calls_of_all_children_count() -> None:
    run = main(calls=2)
    first, second = run.child(share=0.5), run.child(share=0.5)
    spend(first, 1, 1)
    spend(second, 1, 1)
    with pytest.raises(BudgetOverdrawn, match="`calls`") as caught:
        spend(first, 1, 1)
    assert caught.value.run == "main"


def test_the_window_is_the_limit_of_each_call() -> None:
    budget = Budget(100, 20, run=main())
    assert budget.ticket(80).tokens_out == 20
    with pytest.raises(BudgetOverdrawn, match="at most 19 out") as caught:
        budget.ticket(81)
    assert caught.value.limit == "window_tokens"
    with pytest.raises(BudgetOverdrawn, match="smaller prompt"):
        budget.ticket(100)


# Overdraft


def test_degrade_grants_fewer_output_tokens_down_to_one() -> None:
    run = Run(Limits(tokens=100), overdraft="degrade", name="main")
    assert not run.reserve(tokens_in=10, tokens_out=20).degraded
    ticket = run.reserve(tokens_in=60, tokens_out=50)
    assert (ticket.tokens_out, ticket.asked_tokens_out, ticket.degraded) == (10, 50, True)
    ticket.settle(reply(60, 9))
    with pytest.raises(BudgetOverdrawn, match="needs 2 and 1 can be had"):
        run.reserve(tokens_in=1, tokens_out=50)
    assert run.reserve(tokens_in=0, tokens_out=50).tokens_out == 1


@pytest.mark.parametrize("limits", [Limits(tokens_out=7), Limits(tokens=57), Limits()])
def test_degrade_looks_at_every_limit_of_the_output(limits: Limits) -> None:
    run = Run(limits, overdraft="degrade")
    window = None if limits != Limits() else 57
    assert run.reserve(tokens_in=50, tokens_out=50, window_tokens=window).tokens_out == 7


def test_degrade_never_shrinks_the_prompt_nor_a_call_without_an_answer() -> None:
    run = Run(Limits(tokens_in=50), overdraft="degrade")
    for tokens_out in (0, 5):
        with pytest.raises(BudgetOverdrawn, match="`tokens_in`"):
            run.reserve(tokens_in=51, tokens_out=tokens_out)
    assert not run.reserve(tokens_in=50, tokens_out=0).degraded


def test_degrade_grants_a_child_what_is_left() -> None:
    run = Run(Limits(tokens=100), overdraft="degrade")
    run.child(tokens=70)
    second = run.child(tokens=70, borrow=False)
    assert second.overdraft == "degrade"
    assert second.left.tokens == 30
    with pytest.raises(BudgetOverdrawn):
        run.child(tokens=1)


def test_a_reply_beyond_its_reservation_is_booked_and_then_refused() -> None:
    run = main(100)
    ticket = run.reserve(tokens_in=50, tokens_out=40)
    with pytest.raises(BudgetOverdrawn, match="took beyond its reservation 25 and 10 can be had"):
        ticket.settle(reply(70, 45))
    assert run.spent == Amounts(115, 70, 45, 1)
    assert run.report().overdrawn.tokens == 15
    assert run.left.tokens == 0
    with pytest.raises(BudgetOverdrawn):
        run.reserve(tokens_in=0, tokens_out=1)


def test_a_reply_beyond_its_reservation_is_only_booked_under_degrade() -> None:
    run = Run(Limits(tokens=100), overdraft="degrade")
    run.reserve(tokens_in=50, tokens_out=40).settle(reply(50, 60))
    assert run.report().overdrawn.tokens == 10


def test_what_a_child_overdraws_is_the_parents_debt_and_not_a_siblings() -> None:
    run = main(100)
    poor, promised = run.child(tokens=40, borrow=False), run.child(tokens=60, borrow=False)
    with pytest.raises(BudgetOverdrawn) as caught:
        poor.reserve(tokens_in=40, tokens_out=0).settle(reply(65, 0))
    assert caught.value.run == poor.name
    assert (poor.report().overdrawn.tokens, run.report().overdrawn.tokens) == (25, 25)
    spend(promised, 60, 0)
    promised.close()
    poor.close()
    assert run.spent.tokens == 125
    assert run.report().lent == Amounts()


def test_a_reply_beyond_its_reservation_is_fine_when_the_run_has_more() -> None:
    run = main(100)
    run.child(tokens=10).reserve(tokens_in=10, tokens_out=0).settle(reply(60, 0))
    assert run.spent.tokens == 60
    assert run.report().overdrawn == Amounts()


# The tree


def test_a_grant_is_promised_to_nobody_else() -> None:
    run = main(100)
    run.child(tokens=60)
    assert run.left.tokens == 40
    with pytest.raises(BudgetOverdrawn, match="60 lent to children") as caught:
        run.child(tokens=41)
    assert caught.value.left == 40
    with pytest.raises(BudgetOverdrawn):
        run.reserve(tokens_in=41, tokens_out=0)


def test_shares_are_of_what_is_left() -> None:
    run = main(100, tokens_in=60)
    lefts = [run.child(share=share, borrow=False).left for share in (1 / 3, 1 / 2, 1)]
    assert [(left.tokens, left.tokens_in) for left in lefts] == [(33, 20), (33, 20), (34, 20)]
    assert run.left.tokens == 0


def test_closing_returns_what_was_not_used_once() -> None:
    run = main(100)
    with run.child(tokens=60) as child:
        spend(child, 10, 5)
        assert run.report().lent.tokens == 45
    assert child.closed
    assert run.left.tokens == 85
    child.close()
    assert run.left.tokens == 85
    assert child.left == Limits(0, 0, 0, 0, 0)


def test_a_child_borrows_up_to_the_root_and_returns_at_once() -> None:
    run = main(100)
    child = run.child(tokens=50).child(tokens=10)
    with child.reserve(tokens_in=90, tokens_out=10):
        assert run.left.tokens == 0
    assert run.left.tokens == 50
    spend(child, 80, 0)
    assert run.left.tokens == 20


def test_a_child_that_may_not_borrow_has_its_grant_only() -> None:
    run = main(100)
    child = run.child(tokens=10, borrow=False, name="scout")
    with pytest.raises(BudgetOverdrawn, match="'scout' may use 10") as caught:
        child.reserve(tokens_in=11, tokens_out=0)
    assert caught.value.run == "scout"
    spend(child, 10, 0)


def test_limits_of_a_child_bound_what_it_borrows() -> None:
    run = main(100)
    child = run.child(tokens=10, limits=Limits(tokens=30, tokens_out=4, calls=2))
    assert child.left == Limits(tokens=30, tokens_out=4, calls=2)
    spend(child, 26, 4)
    assert child.left == Limits(tokens=0, tokens_out=0, calls=1)
    assert run.left.tokens == 70


def test_a_grant_below_an_unlimited_run_is_a_number_all_the_same() -> None:
    child = Run().child(tokens=50, borrow=False)
    assert child.left.tokens == 50
    assert child.child(share=0.5, borrow=False).left.tokens == 25


def test_closing_closes_the_children_first() -> None:
    run = main(100)
    child = run.child(tokens=60)
    grandchild = child.child(tokens=50)
    spend(grandchild, 7, 0)
    child.close()
    assert grandchild.closed
    assert run.left.tokens == 93
    for refused in (lambda: grandchild.child(tokens=1), lambda: spend(child, 1, 1), lambda: child.occupy(1)):
        with pytest.raises(BudgetClosed, match="is closed and cannot"):
            refused()


def test_a_call_in_flight_outlives_its_run_and_is_booked() -> None:
    run = main(100)
    child = run.child(tokens=60)
    ticket, dropped = child.reserve(tokens_in=20, tokens_out=10), child.reserve(tokens_in=5, tokens_out=0)
    child.close()
    assert run.left.tokens == 65
    ticket.settle(reply(20, 1))
    dropped.cancel()
    assert run.spent.tokens == 21
    assert run.left.tokens == 79


def test_depth_counts_generations_below_the_run_that_limits_it() -> None:
    run = main(depth=2)
    child = run.child(tokens=100, name="child")
    assert [run.left.depth, child.left.depth] == [2, 1]
    grandchild = child.child(tokens=10, name="grandchild")
    with pytest.raises(BudgetOverdrawn, match="'grandchild' would stand 3 below 'main'") as caught:
        grandchild.child(tokens=1)
    assert (caught.value.limit, caught.value.run) == ("depth", "main")
    with pytest.raises(BudgetOverdrawn, match="below 'leaf'"):
        run.child(tokens=1, limits=Limits(depth=0), name="leaf").child(tokens=1)


def test_a_deep_tree_borrows_and_closes() -> None:
    run = deepest = main(1_000)
    for _ in range(900):
        deepest = deepest.child(tokens=1)
    spend(deepest, 100, 0)
    assert run.spent.tokens == 100
    run.close()
    assert deepest.closed


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"share": 0.5, "tokens": 10},
        {"share": 0},
        {"share": -0.1},
        {"share": 1.01},
        {"share": math.nan},
        {"tokens": 0},
        {"tokens": -5},
        {"tokens": 2.5},
        {"tokens": True},
        {"tokens": 10, "limits": Limits(tokens=9)},
        {"tokens": 10, "overdraft": "ignore"},
    ],
    ids=str,
)
def test_bad_children_are_refused(arguments: dict[str, Any]) -> None:
    run = main()
    with pytest.raises(BudgetError):
        run.child(**arguments)
    assert run.report().children == ()
    assert run.left.tokens == 1_000


def test_other_bad_numbers_are_refused() -> None:
    run = main()
    for wrong in (-1, 1.5, True, None):
        for call in (
            lambda n: run.reserve(tokens_in=n, tokens_out=1),
            lambda n: run.reserve(tokens_in=1, tokens_out=n),
            lambda n: run.occupy(n),
        ):
            with pytest.raises(BudgetError, match="whole number of at least 0"):
                call(wrong)  # type: ignore[no-untyped-call]
    with pytest.raises(BudgetError, match="`calls` must be"):
        Limits(calls=-1)
    with pytest.raises(BudgetError, match="no token limit"):
        Run(Limits(calls=3)).child(share=0.5)
    with run.reserve(tokens_in=5, tokens_out=5) as ticket, pytest.raises(BudgetError, match="reply.completion"):
        ticket.settle(reply(5, -1))
    assert run.left.tokens == 1_000


# Budget


def test_a_budget_makes_children_with_its_own_window() -> None:
    budget = Budget(100, 20, floors={"turn": 5}, run=main())
    with budget.child(share=0.25, name="scout", overdraft="degrade") as child:
        assert child.run is not None and child.run.parent is budget.run and child.run.overdraft == "degrade"
        assert child == budget
        child.ticket(50).settle(reply(50, 10))
    assert budget.run is not None and budget.run.left.tokens == 940
    assert "run=Run('main', tokens 1,000, 60 tokens spent)" in repr(budget)
    assert copy.deepcopy(budget).run is budget.run


def test_replacing_the_window_keeps_the_run() -> None:
    budget = Budget(100, run=main())
    assert replace(budget, window_tokens=50).run is budget.run


def test_a_budget_without_a_run_says_how_to_get_one() -> None:
    budget = Budget(100)
    for call in (lambda: budget.child(share=0.5), lambda: budget.ticket(10)):
        with pytest.raises(BudgetError, match="run=Run"):
            call()
    with budget as same:
        assert same.affordable() is budget


@pytest.mark.parametrize(
    ("limits", "window", "reserve", "floor"),
    [
        (Limits(), 100, 20, 40),
        (Limits(tokens=50), 50, 10, 20),
        (Limits(tokens_in=16), 36, 20, 8),
        (Limits(tokens_out=3), 83, 3, 40),
        (Limits(tokens=2), 2, 1, 0),
    ],
)
def test_an_affordable_budget_is_one_that_the_run_can_pay(
    limits: Limits, window: int, reserve: int, floor: int
) -> None:
    budget = Budget(100, 20, floors={"turn": 40}, caps={"turn": 50}, run=Run(limits)).affordable()
    assert (budget.window_tokens, budget.reserve_tokens, budget.floors["turn"]) == (window, reserve, floor)
    assert budget.ticket(budget.prompt_tokens).tokens_out == reserve


@pytest.mark.parametrize("limits", [{"tokens": 1}, {"tokens_in": 0}, {"tokens_out": 0}, {"calls": 0}], ids=str)
def test_nothing_is_affordable_without_a_prompt_an_answer_and_a_call(limits: dict[str, int]) -> None:
    run = Run(Limits(**limits))
    with pytest.raises(BudgetOverdrawn, match="can pay for no call"):
        Budget(100, 20, run=run).affordable()
    run.close()
    with pytest.raises(BudgetClosed):
        Budget(100, 20, run=run).affordable()


# Occupancy and the report


def test_occupancy_comes_and_goes_and_is_never_spend() -> None:
    run = main(100)
    with run.occupy(500) as first, run.occupy(300):
        assert run.occupancy == 800
        first.release()
        first.release()
        assert run.occupancy == 300
    assert (run.occupancy, run.peak_occupancy) == (0, 800)
    assert (run.spent, run.left.tokens) == (Amounts(), 100)
    spend(run, 50, 0)
    assert run.peak_occupancy == 800


def test_a_closed_run_occupies_nothing() -> None:
    run = main()
    standing = run.occupy(10)
    run.close()
    standing.release()
    assert (run.occupancy, run.peak_occupancy) == (0, 10)


def test_the_report_is_a_table_and_json() -> None:
    run = Run(Limits(tokens=10_000, calls=9), name="main")
    child = run.child(tokens=2_500, name="scout")
    spend(child, 1_000, 20)
    child.occupy(1_000)
    ticket = run.reserve(tokens_in=100, tokens_out=10)
    assert str(run.report()).splitlines() == [
        "run         in  out  calls  reserved   lent  window   peak  left",
        "main     1,000   20      1       110  1,480       0      0  tokens 7,390, calls 7",
        "  scout  1,000   20      1         0      0   1,000  1,000  tokens 8,870, calls 7",
    ]
    before = run.report()
    data = json.loads(json.dumps(before.to_dict()))
    assert data["children"][0]["own_spent"] == {"tokens": 1_020, "tokens_in": 1_000, "tokens_out": 20, "calls": 1}
    assert data["own_spent"]["calls"] == 0
    ticket.cancel()
    child.close()
    assert before.reserved.tokens == 110, "a snapshot does not move"
    assert str(run.report()).splitlines()[-1].endswith("closed")
    assert str(Run().report()).endswith("no limit")


# Concurrency


def test_threads_never_overdraw_and_lose_nothing() -> None:
    run = main(20_000)
    branches = [run.child(tokens=1_000) for _ in range(4)]
    start = threading.Barrier(8)

    def work(seed: int) -> tuple[int, int]:
        start.wait()
        calls = taken = 0
        for step in range(200):
            branch = branches[(seed + step) % 4]
            try:
                with branch.child(tokens=7 + step % 5) as child, child.reserve(tokens_in=9, tokens_out=6) as ticket:
                    if step % 3:
                        ticket.settle(reply(9, step % 6))
                        calls, taken = calls + 1, taken + 9 + step % 6
            except BudgetOverdrawn:
                continue
        return calls, taken

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    report = run.report()
    assert (report.spent.calls, report.spent.tokens) == tuple(map(sum, zip(*results, strict=True)))
    for branch in branches:
        branch.close()
    assert run.left.tokens == 20_000 - run.spent.tokens
    assert run.report().lent == run.report().reserved == Amounts()


def test_exactly_as_many_threads_get_a_ticket_as_there_is_money_for() -> None:
    run = main(100)
    start = threading.Barrier(16)

    def work(_: int) -> Ticket | None:
        start.wait()
        try:
            return run.reserve(tokens_in=10, tokens_out=5)
        except BudgetOverdrawn:
            return None

    with ThreadPoolExecutor(16) as pool:
        assert sum(ticket is not None for ticket in pool.map(work, range(16))) == 6


def test_one_ticket_settled_by_many_threads_is_settled_once() -> None:
    run = main(1_000)
    ticket, start = run.reserve(tokens_in=10, tokens_out=5), threading.Barrier(8)

    def work(_: int) -> bool:
        start.wait()
        try:
            ticket.settle(reply(10, 5))
        except BudgetClosed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1
    assert run.spent == Amounts(15, 10, 5, 1)


async def agent(budget: Budget, gate: asyncio.Event, fails: bool) -> None:
    async with budget.child(tokens=50) as child, child.ticket(20, 10) as ticket:
        await gate.wait()
        if fails:
            raise RuntimeError
        ticket.settle(reply(20, 4))


def test_coroutines_share_a_run_and_cancelled_ones_give_back() -> None:
    async def main_coroutine() -> None:
        run, gate = main(1_000), asyncio.Event()
        budget = Budget(100, run=run)
        tasks = [asyncio.create_task(agent(budget, gate, fails=i % 3 == 0)) for i in range(12)]
        while run.report().lent.tokens < 600:
            await asyncio.sleep(0)
        tasks[1].cancel()
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(result is None for result in results) == 7
        assert run.spent == Amounts(7 * 24, 7 * 20, 7 * 4, 7)
        assert run.left.tokens == 1_000 - 7 * 24

    asyncio.run(main_coroutine())


def test_a_finaliser_inside_the_locked_section_waits_for_its_end() -> None:
    run = main(100)

    def stream() -> Iterator[str]:
        with run.child(tokens=50) as child, child.reserve(tokens_in=20, tokens_out=10):
            yield "piece"

    pieces = stream()
    next(pieces)
    with run._lock:
        del pieces  # closes the generator here, as a collection inside the section would
        gc.collect()
        assert run._accounts["tokens"].given == 50
    assert run.left.tokens == 100


# Any order of operations

AMOUNT = st.integers(0, 40)
LIMIT = st.none() | st.integers(0, 300)
LIMITS = st.builds(Limits, LIMIT, LIMIT, LIMIT, st.none() | st.integers(0, 12), st.none() | st.integers(0, 4))


class Tree(RuleBasedStateMachine):
    """A tree under any sequence of operations, against sums kept beside it.

    Replies never take more than their tickets here, so that no limit may ever be passed; `overspent` lets them.
    """

    runs: Bundle[Run] = Bundle("runs")
    tickets: Bundle[Ticket] = Bundle("tickets")
    standings: Bundle[Standing] = Bundle("standings")

    @initialize(target=runs, limits=LIMITS, overdraft=st.sampled_from(["raise", "degrade"]))
    def start(self, limits: Limits, overdraft: Any) -> Run:
        self.root = Run(limits, overdraft=overdraft)
        self.spent: dict[Run, list[int]] = {self.root: [0, 0, 0]}
        self.reserved: dict[Ticket, None] = {}
        self.occupied: dict[Standing, None] = {}
        self.overspent = False
        return self.root

    @rule(
        target=runs,
        parent=runs,
        grant=st.fixed_dictionaries({"share": st.floats(0.01, 1)})
        | st.fixed_dictionaries({"tokens": st.integers(1, 120)}),
        limits=st.none() | LIMITS,
        borrow=st.booleans(),
    )
    def child(self, parent: Run, grant: dict[str, Any], limits: Limits | None, borrow: bool) -> Any:
        before, free = parent.report(), parent._accounts["tokens"].free
        try:
            child = parent.child(**grant, limits=limits, borrow=borrow)
        except (BudgetError, BudgetOverdrawn, BudgetClosed):
            assert parent.report() == before
            return multiple()
        assert parent._accounts["tokens"].free <= free
        self.spent[child] = [0, 0, 0]
        return child

    @rule(target=tickets, run=runs, tokens_in=AMOUNT, tokens_out=AMOUNT)
    def reserve(self, run: Run, tokens_in: int, tokens_out: int) -> Any:
        before, left = self.root.report(), run.left
        try:
            ticket = run.reserve(tokens_in=tokens_in, tokens_out=tokens_out)
        except (BudgetOverdrawn, BudgetClosed):
            assert self.root.report() == before
            least = min(1, tokens_out) if run.overdraft == "degrade" else tokens_out
            assert not self.fits(left, tokens_in, least), "what is said to be left can be had"
            return multiple()
        assert self.fits(left, tokens_in, ticket.tokens_out), "no more can be had than is said to be left"
        assert ticket.tokens_out == tokens_out or not self.fits(left, tokens_in, ticket.tokens_out + 1)
        self.reserved[ticket] = None
        return ticket

    @staticmethod
    def fits(left: Limits, tokens_in: int, tokens_out: int) -> bool:
        needs = (tokens_in + tokens_out, tokens_in, tokens_out, 1)
        lefts = (left.tokens, left.tokens_in, left.tokens_out, left.calls)
        return all(n is None or need <= n for need, n in zip(needs, lefts, strict=True))

    @rule(ticket=consumes(tickets), part=st.floats(0, 1))
    def settle(self, ticket: Ticket, part: float) -> None:
        self.book(ticket, int(ticket.tokens_in * part), int(ticket.tokens_out * part))

    @rule(ticket=consumes(tickets), more_in=AMOUNT, more_out=AMOUNT)
    def settle_too_much(self, ticket: Ticket, more_in: int, more_out: int) -> None:
        self.overspent = self.overspent or more_in + more_out > 0
        self.book(ticket, ticket.tokens_in + more_in, ticket.tokens_out + more_out)

    def book(self, ticket: Ticket, tokens_in: int, tokens_out: int) -> None:
        try:
            ticket.settle(reply(tokens_in, tokens_out))
        except BudgetOverdrawn:
            assert ticket.run.overdraft == "raise" and self.overspent
        del self.reserved[ticket]
        for i, amount in enumerate((tokens_in, tokens_out, 1)):
            self.spent[ticket.run][i] += amount
        self.is_over(ticket)

    @rule(ticket=consumes(tickets))
    def cancel(self, ticket: Ticket) -> None:
        ticket.cancel()
        del self.reserved[ticket]
        self.is_over(ticket)

    def is_over(self, ticket: Ticket) -> None:
        before = self.root.report()
        ticket.cancel()
        with pytest.raises(BudgetClosed):
            ticket.settle(reply(1, 1))
        assert self.root.report() == before

    @rule(target=standings, run=runs, tokens=AMOUNT)
    def occupy(self, run: Run, tokens: int) -> Any:
        if run.closed:
            return multiple()
        standing = run.occupy(tokens)
        self.occupied[standing] = None
        return standing

    @rule(standing=standings)
    def release(self, standing: Standing) -> None:
        standing.release()
        self.occupied.pop(standing, None)

    @rule(run=runs)
    def close(self, run: Run) -> None:
        run.close()
        after = self.root.report()
        run.close()
        assert self.root.report() == after, "nothing is returned twice"

    @invariant()
    def every_run_keeps_its_limits(self) -> None:
        for report in nodes(self.root.report()):
            for meter in METERS:
                spent, reserved, lent, overdrawn = (
                    getattr(amounts, meter)
                    for amounts in (report.spent, report.reserved, report.lent, report.overdrawn)
                )
                assert min(spent, reserved, lent, overdrawn) >= 0
                limit = getattr(report.limits, meter)
                assert limit is None or spent + reserved + lent <= limit + overdrawn
                assert self.overspent or not overdrawn

    @invariant()
    def every_account_adds_up(self) -> None:
        for run in self.spent:
            for meter, account in run._accounts.items():
                children = [child._accounts[meter] for child in run._children]
                assert account.given == sum(child.held for child in children)
                assert account.spent == account.own + sum(child.spent for child in children)
                assert account.parent is None or account.used <= account.held
                if account.parent is not None and not run.closed:
                    assert account.held == max(account.used, account.keep), "borrowed and unused is returned"
                if account.parent is not None and run.closed:
                    assert account.free == 0 and account.keep == 0, "a closed run holds on to nothing"

    @invariant()
    def the_sums_are_those_of_the_calls(self) -> None:
        for run, (tokens_in, tokens_out, calls) in self.spent.items():
            report = run.report()
            assert report.own_spent == Amounts(tokens_in + tokens_out, tokens_in, tokens_out, calls)
            mine = [ticket for ticket in self.reserved if ticket.run is run]
            assert report.reserved.calls == len(mine)
            assert report.reserved.tokens == sum(t.tokens_in + t.tokens_out for t in mine)
            standing = 0 if run.closed else sum(s.tokens for s in self.occupied if s.run is run)
            assert report.occupancy_tokens == standing <= report.peak_occupancy_tokens
        whole = [sum(column) for column in zip(*self.spent.values(), strict=True)]
        assert self.root.spent == Amounts(whole[0] + whole[1], *whole)

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        for ticket in list(self.reserved):
            ticket.cancel()
        for run in list(self.spent)[1:]:
            run.close()
        report = self.root.report()
        assert report.lent == report.reserved == Amounts()
        for meter in METERS:
            limit, left = getattr(report.limits, meter), getattr(report.left, meter)
            if not self.root.closed and limit is not None:
                assert left == max(0, limit - getattr(report.spent, meter))


TestTree = Tree.TestCase
TestTree.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
