"""A plan in words: one line, plain text, and a rich table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit.context.decision import Decision
    from ctxkit.context.plan import Plan


def one_line(plan: Plan) -> str:
    bound = "" if plan.exact else ", upper bound"
    return (
        f"Plan({plan.prompt_tokens:,} of {plan.budget.prompt_tokens:,} tokens{bound}, "
        f"{len(plan.kept)} of {len(plan.decisions)} parts, gap {plan.gap:.1%}, {plan.counter_name})"
    )


def headline(plan: Plan) -> str:
    """Tokens used, free and reserved, as one sentence."""
    kind = "exact" if plan.exact else "upper bound"
    return (
        f"{plan.prompt_tokens:,} of {plan.budget.prompt_tokens:,} prompt tokens ({kind}, {plan.counter_name}); "
        f"{plan.free_tokens:,} free, {plan.budget.reserve_tokens:,} reserved for the answer"
    )


def rows(plan: Plan) -> list[tuple[str, str, str, str, str]]:
    """(number, part, level, tokens, why) per part, then template and tools: the tokens add up to prompt_tokens.

    A part is named by its source where it has one, else by its id.
    """
    listed = [
        (f"[{d.number}]" if d.number else "", d.part.source or d.part.id, d.level, f"{d.tokens:,}", _short(d))
        for d in plan.decisions
    ]
    listed.append(("", "template", "", f"{plan.template_tokens:,}", "chat template and generation prompt"))
    if plan.tools_tokens:
        listed.append(("", "tools", "", f"{plan.tools_tokens:,}", "tool schemas"))
    return listed


def as_text(plan: Plan) -> str:
    table = rows(plan)
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = [
        f"{n:>{widths[0]}} {name:<{widths[1]}} {level:<{widths[2]}} {tokens:>{widths[3]}}  {reason}".rstrip()
        for n, name, level, tokens, reason in table
    ]
    return "\n".join([headline(plan), *lines])


def as_table(plan: Plan) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=headline(plan), title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column("part", overflow="fold")
    table.add_column("level")
    table.add_column("tokens", justify="right")
    table.add_column("why", overflow="fold")
    for row in rows(plan):
        table.add_row(*map(Text, row), style="dim" if row[2] == "dropped" else "")
    return table


def _short(decision: Decision) -> str:
    return decision.reason if decision.enters_at is None else f"{decision.reason}; in at {decision.enters_at:,}"


def why(decision: Decision) -> str:
    taken = f"{decision.level}, {decision.tokens:,} tokens" if decision.kept else "dropped"
    return f"{decision.part.id}: {taken}; {decision.reason}"
