"""A plan in words: one line, plain text, and a table as wide as its terminal. All three show the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

    from ctxkit.context.decision import Decision
    from ctxkit.context.plan import Plan, PlanDiff

MOST_ROWS = 200
"""Decisions that a table lists one by one; what the others take is summed in one more row."""

_DROPPED_SHARE = 10  # one row in so many is for dropped parts, however many are kept
_NAME, _LEVEL = 60, 24  # cells that a name and a level get where nothing else limits them
_WHY = 26  # cells that the reasons get before names are shortened
_GAP = 2  # cells between two columns of a table in a terminal
_REPAIRS = 10  # repairs that are told one by one


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a plan. `decision` is None for what is no part: the template, the tools, the sum of the rest."""

    number: str
    name: str
    level: str
    tokens: int
    why: str
    decision: Decision | None = None

    @property
    def dropped(self) -> bool:
        return self.decision is not None and not self.decision.kept

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """The row as text. No cell breaks a line or moves the cursor, whatever a part is called."""
        return self.number, on_one_line(self.name), on_one_line(self.level), f"{self.tokens:,}", on_one_line(self.why)


def one_line(plan: Plan) -> str:
    bound = "" if plan.exact else ", upper bound"
    return (
        f"Plan({plan.prompt_tokens:,} of {plan.budget.prompt_tokens:,} tokens{bound}, "
        f"{len(plan.kept)} of {len(plan.decisions)} parts, gap {plan.gap:.1%}, {plan.counter_name})"
    )


def headline(plan: Plan) -> str:
    """Tokens used, free and reserved, as one sentence; the label where there is one."""
    kind = "exact" if plan.exact else "upper bound"
    label = "" if plan.label.is_default else f"; label {plan.label}"
    return (
        f"{plan.prompt_tokens:,} of {plan.budget.prompt_tokens:,} prompt tokens ({kind}, {plan.counter_name}); "
        f"{plan.free_tokens:,} free, {plan.budget.reserve_tokens:,} reserved for the answer{label}"
    )


def rows(plan: Plan, most: int = MOST_ROWS) -> list[Row]:
    """One row per part in the order given, then the sum of the parts left out, template and tools.

    The tokens add up to prompt_tokens. Of more than `most` parts, the pinned, the largest kept and the largest dropped
    ones are listed. A part is named by its source where it has one, else by its id.
    """
    listed, rest = _split(plan.decisions, max(most, 1))
    made = [_row(decision) for decision in listed]
    if rest:
        made.append(_sum_of(rest))
    made.append(Row("", "template", "", plan.template_tokens, "chat template and generation prompt"))
    if plan.tools_tokens:
        made.append(Row("", "tools", "", plan.tools_tokens, "tool schemas"))
    return made


def _row(decision: Decision) -> Row:
    number = f"[{decision.number}]" if decision.number else ""
    name = decision.part.source or decision.part.id
    return Row(number, name, level_of(decision), decision.tokens, _short(decision), decision)


def _sum_of(rest: Sequence[Decision]) -> Row:
    kept = sum(decision.kept for decision in rest)
    whole = sum(decision.full_tokens for decision in rest if not decision.kept)
    told = [f"{kept:,} kept"] * bool(kept) + [f"{len(rest) - kept:,} dropped ({whole:,} tokens)"] * (kept < len(rest))
    return Row("", f"... and {len(rest):,} more", "", sum(decision.tokens for decision in rest), ", ".join(told))


def _split(decisions: Sequence[Decision], most: int) -> tuple[Sequence[Decision], Sequence[Decision]]:
    """What is listed and what is summed."""
    if len(decisions) <= most:
        return decisions, ()
    kept = sorted((d for d in decisions if d.kept), key=lambda d: (not d.part.pinned, -d.tokens))
    dropped = sorted((d for d in decisions if not d.kept), key=lambda d: -d.full_tokens)
    kept = kept[: most - min(len(dropped), most // _DROPPED_SHARE)]
    listed = {decision.part.id for decision in kept + dropped[: most - len(kept)]}
    return [d for d in decisions if d.part.id in listed], [d for d in decisions if d.part.id not in listed]


def is_reduced(decision: Decision) -> bool:
    return decision.kept and decision.level != "full"


def share_kept(decision: Decision) -> float:
    """Tokens of the part in the prompt for each that it would take whole, in [0, 1]."""
    return min(decision.tokens / decision.full_tokens, 1.0) if decision.full_tokens else float(decision.kept)


def level_of(decision: Decision) -> str:
    """The level and, where that is a reduced one, the share that it keeps."""
    if not is_reduced(decision):
        return decision.level
    return f"{decision.level} {min(max(round(100 * share_kept(decision)), 1), 99)}%"


def as_text(plan: Plan) -> str:
    """One line per row, for files and pipes: nothing is wrapped, no colours."""
    from rich.cells import cell_len

    cells = [_fitted(row, _NAME) for row in rows(plan)]
    widths = [max(cell_len(line[column]) for line in cells) for column in range(4)]
    lines = []
    for line in cells:
        number, name, level, tokens = (
            " " * (width - cell_len(cell)) for width, cell in zip(widths, line[:4], strict=True)
        )
        lines.append(f"{number}{line[0]} {line[1]}{name} {line[2]}{level} {tokens}{line[3]}  {line[4]}".rstrip())
    return "\n".join([headline(plan), *lines, *told_repairs(plan)])


def _fitted(row: Row, name_cells: int) -> tuple[str, str, str, str, str]:
    number, name, level, tokens, reason = row.cells
    return number, shortened(name, name_cells), shortened(level, _LEVEL), tokens, reason


def told_repairs(plan: Plan) -> list[str]:
    """One line for each repair of the conversation, and one for those beyond the first few."""
    more = len(plan.repairs) - _REPAIRS
    lines = [f"repaired: {on_one_line(one)}" for one in plan.repairs[:_REPAIRS]]
    return lines + [f"repaired: ... and {more:,} more"] * (more > 0)


@dataclass(frozen=True)
class PlanTable:
    """A plan for rich, laid out for the width that it is printed at. Names are never broken: long ones lose their
    beginning."""

    plan: Plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.text import Text

        width = options.max_width
        head = headline(self.plan)
        yield Text(head if cell_len(head) <= width else head.replace("; ", ";\n"), style="bold")
        yield self._table(width)
        for line in told_repairs(self.plan):
            yield Text(line, style="yellow")

    def _table(self, width: int) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        listed = rows(self.plan)
        name_cells = _room_for_names([row.cells for row in listed], width)
        table = Table("", "part", "level", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.columns[1].no_wrap = table.columns[2].no_wrap = True
        table.add_column("tokens", justify="right", no_wrap=True)
        table.add_column("why")
        for row in listed:
            table.add_row(*map(Text, _fitted(row, name_cells)), style="dim" if row.dropped else "")
        return table


def _room_for_names(cells: Sequence[tuple[str, str, str, str, str]], width: int) -> int:
    """Cells for the column of names in a terminal of so many."""
    from rich.cells import cell_len

    widest = [max(cell_len(line[column]) for line in cells) for column in range(5)]
    room = width - widest[0] - min(max(widest[2], 5), _LEVEL) - max(widest[3], 6) - 4 * _GAP
    return max(room - min(widest[4], _WHY), room // 2, 8)


def as_table(plan: Plan) -> PlanTable:
    return PlanTable(plan)


def shortened(text: str, cells: int) -> str:
    """`text` in at most so many terminal cells, shortened from the left: the end of a path tells most.

    >>> shortened("docs/guide/budget.md:10-24", 16)
    '…budget.md:10-24'
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= cells:
        return text
    backwards = set_cell_size(text[::-1], max(cells - 1, 0)).rstrip()
    return "…" + backwards[::-1]


def on_one_line(text: str) -> str:
    """`text` with what does not print written as an escape.

    >>> on_one_line("a\\nb")
    'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    all_names = list(map(on_one_line, names))
    more = len(all_names) - most
    return ", ".join(all_names[:most]) + (f" and {more:,} more" if more > 0 else "")


def changes(diff: PlanDiff) -> str:
    """A diff in one line, however many parts it names."""
    named = (("entered", diff.entered), ("left", diff.left), ("changed", diff.changed))
    told = [f"{name}: {listed(ids)}" for name, ids in named if ids] or ["same parts"]
    return f"{'; '.join(told)} ({diff.tokens:+,} tokens)"


def _short(decision: Decision) -> str:
    reason = decision.reason if decision.label.is_default else f"{decision.reason} ({decision.label})"
    return reason if decision.enters_at is None else f"{reason}; in at {decision.enters_at:,}"


def why(decision: Decision) -> str:
    whole = f" of {decision.full_tokens:,}" if is_reduced(decision) else ""
    taken = f"{decision.level}, {decision.tokens:,}{whole} tokens" if decision.kept else "dropped"
    return f"{decision.part.id}: {taken}; {decision.reason}"
