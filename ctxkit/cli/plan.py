"""`ctxkit plan`: why each passage is in, reduced or out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ctxkit.cli.loading import open_counter, open_index
from ctxkit.cli.options import AsJson, BudgetTokens, Candidates, IndexFolder, ModelName, Question, ReserveTokens, limits
from ctxkit.cli.output import STDOUT, emit_json, print_raw, shortened

if TYPE_CHECKING:
    from ctxkit.context import Plan

_GAP = 3  # cells between two columns
_WHY = 26  # cells that the reasons get before sources are shortened


def plan(
    question: Question,
    budget: BudgetTokens = None,
    reserve: ReserveTokens = None,
    index: IndexFolder = None,
    model: ModelName = None,
    candidates: Candidates = 40,
    as_json: AsJson = False,
) -> None:
    """Show the prompt that `ask` would send: what each passage costs, and why it is in or out."""
    from ctxkit.context import report
    from ctxkit.pipeline import Pipeline

    within = limits(budget, reserve)
    with open_index(index) as opened:
        made = Pipeline(opened, candidates=candidates).plan(question, counter=open_counter(model), budget=within)
    if as_json:
        emit_json({"question": question, **made.to_dict()})
    elif STDOUT.is_terminal:
        STDOUT.print(report.headline(made), style="bold", soft_wrap=False)
        STDOUT.print(_table(made, STDOUT.width))
    else:
        print_raw(f"{made}\n")


def _table(made: Plan, width: int) -> Table:
    """The plan in a terminal of so many cells. Sources are never broken: what does not fit loses its beginning."""
    from ctxkit.context import report

    rows = report.rows(made)
    widest = [max(cell_len(row[column]) for row in rows) for column in range(5)]
    room = width - widest[0] - max(widest[2], 5) - max(widest[3], 6) - 4 * _GAP
    named = max(room - min(widest[4], _WHY), room // 2, 8)
    table = Table("", "part", "level", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[1].no_wrap = True
    table.add_column("tokens", justify="right")
    table.add_column("why")
    for number, name, level, tokens, why in rows:
        cells = (number, shortened(name, named), level, tokens, why)
        table.add_row(*map(Text, cells), style="dim" if level == "dropped" else "")
    return table
