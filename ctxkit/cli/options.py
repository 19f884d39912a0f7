"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ctxkit.cli.settings import settings

if TYPE_CHECKING:
    from ctxkit.context import Budget

_DEFAULT_RESERVE = 256

# As the library lists them, which is not loaded before a command runs; a test compares.
EngineName = Literal["auto", "exact", "multivector", "flat", "ivf", "hnsw"]
SearchMode = Literal["hybrid", "dense", "lexical"]


def _readable(question: str | None) -> str | None:
    if question is None:
        return None
    if not question.strip():
        raise typer.BadParameter("it is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise typer.BadParameter(f"it is not valid UTF-8 (character {error.start + 1:,})") from error
    return question


Question = Annotated[str, typer.Argument(help="What is asked.", show_default=False, callback=_readable)]
OptionalQuestion = Annotated[
    str | None, typer.Argument(help="What is asked. Not with --messages.", show_default=False, callback=_readable)
]
IndexFolder = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index. (env: CTXKIT_INDEX; default: .ctxkit)")
]
BudgetTokens = Annotated[
    int | None, typer.Option("--budget", min=1, help="Tokens in all. (env: CTXKIT_BUDGET; default: 2000)")
]
WindowTokens = Annotated[
    int | None,
    typer.Option("--budget", "--window", min=1, help="Tokens in all. (env: CTXKIT_BUDGET; default: 2000)"),
]
ReserveTokens = Annotated[
    int | None,
    typer.Option(
        "--reserve",
        min=1,
        help=f"Of these, kept for the answer. (env: CTXKIT_RESERVE; default: {_DEFAULT_RESERVE}, at most a quarter)",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A name of `ctxkit models list`, a model folder, or a hub id. (env: CTXKIT_MODEL; "
        "default: smollm2-135m-instruct)",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="Ask the model of an OpenAI-compatible server instead, e.g. http://host:8000/v1."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Candidates = Annotated[int, typer.Option("--candidates", min=1, help="Passages offered to the budget.")]


def limits(budget: int | None, reserve: int | None) -> Budget:
    """Window and reserve: flags, else the environment, else the defaults."""
    from ctxkit.context import Budget

    defaults = settings()
    window = budget or defaults.budget
    kept = reserve or defaults.reserve or max(min(_DEFAULT_RESERVE, window // 4), 1)
    if kept >= window:
        raise typer.BadParameter(f"--reserve ({kept:,}) leaves nothing of --budget ({window:,}) for the prompt")
    return Budget(window, kept)
