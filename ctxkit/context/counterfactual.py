"""Why not: what would have to go to admit a part, and the window at which it comes in by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxkit.context import report
from ctxkit.errors import BudgetInfeasible

if TYPE_CHECKING:
    from ctxkit.context.decision import Decision
    from ctxkit.context.plan import Plan

_TRIES = 12  # of windows, each a plan of its own


def why_not(plan: Plan, decision: Decision) -> str:
    """One line; each of its statements was found by planning again, not by an estimate."""
    part_id = decision.part.id
    if decision.kept:
        return f"{part_id} is in the prompt ({decision.level}, {decision.tokens:,} tokens)"
    entry = entry_window(plan, decision)
    if entry is None:
        return report.why(decision)
    more = entry - plan.budget.window_tokens
    return f"{report.why(decision)}; {price_of(plan, part_id)}; comes in at a window of {entry:,} tokens (+{more:,})"


def price_of(plan: Plan, part_id: str) -> str:
    """What the budget would have to give up for the part, whole."""
    try:
        instead = plan.replan(require=[part_id])
    except BudgetInfeasible as refusal:
        return f"not even alone with what must be in (that takes a window of {refusal.minimum:,})"
    changes = instead.diff(plan)
    gone = [*changes.left, *(f"{name} whole" for name in changes.changed)]
    return f"to admit it, {', '.join(gone)} would have to go" if gone else "nothing would have to go"


def entry_window(plan: Plan, decision: Decision) -> int | None:
    """A window at which the part is in, as small as a few tries find; None where no window lets it in."""
    if decision.enters_at is None:
        return None
    low, high = plan.budget.window_tokens, max(decision.enters_at, plan.budget.window_tokens + 1)
    tries = _TRIES
    while tries and not _is_in(plan, decision.part.id, high):
        low, high, tries = high, high + max((high - plan.budget.window_tokens) // 4, 1), tries - 1
    if not tries:
        return None
    while tries and high - low > 1:
        middle, tries = (low + high) // 2, tries - 1
        low, high = (low, middle) if _is_in(plan, decision.part.id, middle) else (middle, high)
    return high


def _is_in(plan: Plan, part_id: str, window: int) -> bool:
    return plan.replan(window_tokens=window).decision(part_id).kept
