"""`ctxkit plan`: why each passage, or each message of a conversation, is in, reduced or out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ctxkit.cli.loading import open_counter, open_index, read_chat
from ctxkit.cli.options import (
    AsJson,
    Candidates,
    IndexFolder,
    ModelName,
    OptionalQuestion,
    ReserveTokens,
    WindowTokens,
    limits,
)
from ctxkit.cli.output import STDOUT, emit_json, print_raw

if TYPE_CHECKING:
    from ctxkit.context import Budget, Plan

Messages = Annotated[
    Path | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help="Plan this conversation instead: JSON, chat messages in OpenAI's form or "
        '{"messages": ..., "tools": ...}; - reads standard input.',
    ),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Say how good the choice is, what more tokens would buy, and why not the rest."),
]


def plan(
    question: OptionalQuestion = None,
    messages: Messages = None,
    budget: WindowTokens = None,
    reserve: ReserveTokens = None,
    index: IndexFolder = None,
    model: ModelName = None,
    candidates: Candidates = 40,
    explain: Explain = False,
    as_json: AsJson = False,
) -> None:
    """Show the prompt that `ask` would send: what each passage costs, and why it is in or out.

    With --messages: what of a conversation fits the window.
    """
    if (question is None) == (messages is None):
        raise typer.BadParameter("give either a question or --messages", param_hint="QUESTION")
    if messages is not None and index is not None:
        raise typer.BadParameter("--messages needs no index", param_hint="--index")
    within = limits(budget, reserve)
    if messages is not None:
        made = _of_conversation(messages, model, within)
    else:
        made = _of_question(str(question), index, model, candidates, within)
    asked = {} if question is None else {"question": question}
    _show(made, asked, explain, as_json)


def _of_question(question: str, index: Path | None, model: str | None, candidates: int, within: Budget) -> Plan:
    from ctxkit.pipeline import Pipeline

    with open_index(index) as opened:
        return Pipeline(opened, candidates=candidates).plan(question, counter=open_counter(model), budget=within)


def _of_conversation(path: Path, model: str | None, within: Budget) -> Plan:
    from ctxkit.session import fit_messages

    messages, tools = read_chat(path)
    return fit_messages(messages, tools=tools, counter=open_counter(model), budget=within)


def _show(made: Plan, asked: dict[str, Any], explain: bool, as_json: bool) -> None:
    from ctxkit.context.counterfactual import explained
    from ctxkit.context.report import as_table

    if as_json:
        emit_json({**asked, **made.to_dict(), **({"explained": explained(made)} if explain else {})})
        return
    if STDOUT.is_terminal:
        STDOUT.print(as_table(made), soft_wrap=False)
    else:
        print_raw(f"{made}\n")
    if explain:
        _show_lines(explained(made))


def _show_lines(lines: Sequence[str]) -> None:
    """One below the other, in a terminal with a hanging indent."""
    if not STDOUT.is_terminal:
        print_raw("\n" + "".join(f"- {line}\n" for line in lines))
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        grid.add_row(Text("-"), Text(line))
    STDOUT.print(grid, soft_wrap=False)
