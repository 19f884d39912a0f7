"""Why not: what would have to go to admit a part, and the window at which it comes in by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ctxkit.context import report
from ctxkit.context.group import grouped
from ctxkit.errors import BudgetInfeasible

if TYPE_CHECKING:
    from ctxkit.context.decision import Decision
    from ctxkit.context.plan import Plan

_TRIES = 12  # of windows, each a plan of its own
_FINENESS = 32  # the window found may be too large by this share of what is missing
_MORE_TOKENS = 1_000


@dataclass(frozen=True)
class Windows:
    """A plan under other windows, each planned once: id -> level of what is kept there."""

    plan: Plan
    seen: dict[int, dict[str, str]] = field(default_factory=dict)

    def levels(self, window: int) -> dict[str, str]:
        if window not in self.seen:
            there = self.plan.replan(window_tokens=window)
            self.seen[window] = {decision.part.id: decision.level for decision in there.kept}
        return self.seen[window]

    def better(self, decision: Decision, window: int) -> bool:
        """Whether the part is in there; where it is in here, whether it is whole there."""
        level = self.levels(window).get(decision.part.id)
        return level == "full" if decision.kept else level is not None

    def bracket(self, decision: Decision, needed: int) -> tuple[int, int]:
        """A window that is too small for the part, by all that is known, and a larger one that may be large enough.

        needed: tokens that it takes beyond this plan's window, at a guess.
        """
        base = self.plan.budget.window_tokens
        known = {window: self.better(decision, window) for window in self.seen if window > base}
        enough = min((window for window, better in known.items() if better), default=None)
        low = max((w for w, better in known.items() if not better and (enough is None or w < enough)), default=base)
        if enough is not None:
            return low, enough
        return low, base + needed if low < base + needed else low + max((low - base) // 4, 1)


def why_not(plan: Plan, decision: Decision, windows: Windows | None = None) -> str:
    """One line; each of its statements was found by planning again, not by an estimate."""
    part_id = decision.part.id
    if decision.kept and not report.is_reduced(decision):
        return f"{part_id} is in the prompt ({decision.level}, {decision.tokens:,} tokens)"
    entry = entry_window(plan, decision, windows)
    if entry is None:
        return report.why(decision)
    more = entry - plan.budget.window_tokens
    comes_in = "whole" if decision.kept else "comes in"
    return f"{report.why(decision)}; {price_of(plan, decision)}; {comes_in} at a window of {entry:,} tokens (+{more:,})"


def price_of(plan: Plan, decision: Decision) -> str:
    """What the budget would have to give up for the part, whole."""
    try:
        instead = plan.replan(require=[decision.part.id])
    except BudgetInfeasible as refusal:
        return f"not even alone with what must be in (that takes a window of {refusal.minimum:,})"
    changes = instead.diff(plan)
    smaller = [name for name in changes.changed if _tokens(instead, name) < _tokens(plan, name)]
    told = (("go", changes.left), ("be reduced", smaller))
    gone = [f"{report.listed(names)} would have to {verb}" for verb, names in told if names]
    wish = "to have it whole" if decision.kept else "to admit it"
    return f"{wish}, {' and '.join(gone)}" if gone else "nothing would have to go"


def _tokens(plan: Plan, part_id: str) -> int:
    return plan.decision(part_id).tokens


def entry_window(plan: Plan, decision: Decision, windows: Windows | None = None) -> int | None:
    """A window at which the part is in (a reduced part: whole), as small as a few tries find; None where none is."""
    base = plan.budget.window_tokens
    if not decision.kept and decision.enters_at is None:
        return None
    needed = decision.full_tokens - decision.tokens if decision.enters_at is None else decision.enters_at - base
    windows = windows or Windows(plan)
    low, high = windows.bracket(decision, max(needed, 1))
    tries = _TRIES
    while tries and not windows.better(decision, high):
        low, high, tries = high, high + max(high - base if decision.kept else (high - base) // 4, 1), tries - 1
    if not tries:
        return None
    while tries and high - low > max((high - base) // _FINENESS, 1):
        middle, tries = (low + high) // 2, tries - 1
        low, high = (low, middle) if windows.better(decision, middle) else (middle, high)
    return high


def explained(plan: Plan, most: int = 10) -> list[str]:
    """How good the choice is, what more tokens would buy, and why not the most valuable of what is missing.

    One line each. Each was found by planning again: for a plan of thousands of parts that takes seconds.
    """
    missing = list(_missing(plan))
    lines = [optimality(plan)]
    if not missing:
        return [*lines, "Every part is in whole: more tokens would change nothing."]
    window = plan.budget.window_tokens
    sizes = ((f"+{_MORE_TOKENS:,} tokens", window + _MORE_TOKENS), (None, 1 << window.bit_length()))
    lines += [shadow_price(plan)]
    lines += [with_window(plan, size, named or f"A window of {size:,} tokens") for named, size in sizes]
    windows = Windows(plan)
    for decision, others in missing[:most]:
        also = f"; with it {report.listed(others)}" if others else ""
        lines.append(report.on_one_line(why_not(plan, decision, windows) + also))
    more = len(missing) - most
    return lines + [f"... and {more:,} more dropped or reduced"] * (more > 0)


def optimality(plan: Plan) -> str:
    """The gap and the bound, as one sentence."""
    if not plan.gap:
        return f"No choice is worth more: this one has value {plan.value:.4g}, all that can be reached."
    return (
        f"At most {_percent(plan.gap)} of the value that can be reached is missed: "
        f"this choice is worth {plan.value:.4g}, none is worth more than {plan.bound:.4g}."
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "0.1%"


def shadow_price(plan: Plan) -> str:
    return f"One more token would buy about {plan.shadow_price:.2g} of value."


def with_window(plan: Plan, window: int, named: str) -> str:
    """What another window would change, as one sentence."""
    there = plan.replan(window_tokens=window)
    changes = there.diff(plan)
    grown = [name for name in changes.changed if _tokens(there, name) >= _tokens(plan, name)]
    whole = [name for name in grown if there.decision(name).level == "full"]
    told = (
        ("bring in", changes.entered),
        ("make whole", whole),
        ("show more of", [name for name in grown if name not in set(whole)]),
        ("show less of", [name for name in changes.changed if name not in set(grown)]),
        ("drop", changes.left),
    )
    all_told = [f"{verb} {report.listed(names)}" for verb, names in told if names]
    if all_told and not there.dropped and not any(map(report.is_reduced, there.kept)):
        return f"{named} would bring in everything, whole ({there.prompt_tokens:,} prompt tokens)."
    return f"{named} would {'; '.join(all_told) or 'change nothing'} ({changes.tokens:+,} prompt tokens)."


def _missing(plan: Plan) -> Iterator[tuple[Decision, Sequence[str]]]:
    """Of each group that is not in whole, the most valuable first: its largest missing part, the ids of the others."""
    groups = grouped([decision.part for decision in plan.decisions])
    for group in sorted(groups, key=lambda group: -plan.worth.get(group.parts[0].id, 0.0)):
        found = [plan.decisions[position] for position in group.positions]
        found = [decision for decision in found if not decision.kept or report.is_reduced(decision)]
        if found:
            largest = max(found, key=lambda decision: decision.full_tokens)
            yield largest, [decision.part.id for decision in found if decision is not largest]
