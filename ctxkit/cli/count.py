"""`ctxkit count`: exact tokens of files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxkit.cli.loading import open_counter, read_text
from ctxkit.cli.options import AsJson, ModelName
from ctxkit.cli.output import emit_json, print_raw


def count(
    files: Annotated[list[Path], typer.Argument(help="Text files; - reads standard input.", show_default=False)],
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Count the tokens of files, as the model's own tokenizer cuts them."""
    counter = open_counter(model)
    tokens = {
        str(path): n for path, n in zip(files, counter.count_batch([read_text(path) for path in files]), strict=True)
    }
    if as_json:
        emit_json({"counter": counter.name, "exact": counter.exact, "tokens": tokens, "total": sum(tokens.values())})
        return
    for name, number in tokens.items():
        print_raw(f"{number:>10,}  {name}\n")
    if len(tokens) > 1:
        print_raw(f"{sum(tokens.values()):>10,}  total\n")
