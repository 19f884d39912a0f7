"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Question = Annotated[str, typer.Argument(help="What is asked.", show_default=False)]
IndexFolder = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index. (env: CTXKIT_INDEX) [default: .ctxkit]")
]
BudgetTokens = Annotated[
    int | None, typer.Option("--budget", min=1, help="Tokens in all. (env: CTXKIT_BUDGET) [default: 2000]")
]
ReserveTokens = Annotated[
    int | None,
    typer.Option("--reserve", min=1, help="Of these, kept for the answer. (env: CTXKIT_RESERVE) [default: 256]"),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A name of `ctxkit models list`, a model folder, or a hub id. (env: CTXKIT_MODEL) "
        "[default: smollm2-135m-instruct]",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="Ask the model of an OpenAI-compatible server instead, e.g. http://host:8000/v1."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Candidates = Annotated[int, typer.Option("--candidates", min=1, help="Passages offered to the budget.")]
