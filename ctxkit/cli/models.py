"""`ctxkit models`: what can run here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ctxkit.cli.options import AsJson
from ctxkit.cli.output import STDOUT, emit_json, note, print_raw
from ctxkit.cli.settings import settings

if TYPE_CHECKING:
    from ctxkit.models import ModelInfo

app = typer.Typer(help="What can run here; prepare a packaged model once.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that ctxkit knows by name. Any model folder or hub id works as well."""
    from dataclasses import asdict

    from ctxkit.models import available

    found = available(settings().cache_dir)
    if as_json:
        emit_json([{**asdict(one), "where": str(one.where) if one.where else None} for one in found])
        return
    rows = [("name", "prepared", "window", "size", "licence", "where"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    narrow = STDOUT.is_terminal and sum(widths) + 2 * len(widths) > STDOUT.width
    for *cells, where in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
        print_raw(f"{line.rstrip()}\n" if narrow else f"{line}  {where}\n")
    for *cells, where in rows[1:] if narrow else ():  # a path is never broken: it gets a line of its own
        print_raw(f"\n{cells[0]}:\n{where}\n")


def _row(one: ModelInfo) -> tuple[str, ...]:
    size = f"{one.size_bytes / 1e6:,.0f} MB" if one.size_bytes else "-"
    where = str(one.where) if one.where else f"ctxkit models prepare {one.name}"
    return (one.name, "yes" if one.prepared else "no", f"{one.window_tokens:,}", size, one.licence, where)


@app.command("prepare")
def prepare_model(name: Annotated[str, typer.Argument(help="A name of `ctxkit models list`.")]) -> None:
    """Convert a packaged model into the cache folder, once (about a minute). Prints the folder."""
    from ctxkit.models import prepare

    note(f"preparing {name}")
    print_raw(f"{prepare(name, settings().cache_dir, progress=True)}\n")


@app.command("inspect")
def inspect_model(
    name: Annotated[str, typer.Argument(help="A name of `ctxkit models list`, a model folder, or a hub id.")],
    as_json: AsJson = False,
    png: Annotated[Path | None, typer.Option("--png", help="Also draw the maps into this file.")] = None,
) -> None:
    """Show what a local model is, which of its heads rest on the first tokens, and which retrieve. The heads are
    measured once, with random tokens (seconds for a small model), and remembered in the cache folder."""
    from ctxkit.cli.head_map import facts, head_map
    from ctxkit.models import LocalModel
    from ctxkit.models.local.inspection import inspect_model as inspected

    cache = settings().cache_dir
    seen = inspected(LocalModel.load(name, cache_dir=cache), None if cache is None else cache / "profiles")
    if png is not None:
        seen.plot(png)
        note(f"drawn into {png}")
    if as_json:
        emit_json(seen.as_json())
        return
    for line in facts(seen):
        print_raw(f"{line}\n")
    for row in (Text(), *head_map(seen, STDOUT.width)):
        STDOUT.print(row)
