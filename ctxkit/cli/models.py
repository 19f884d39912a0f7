"""`ctxkit models`: what can run here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ctxkit.cli.options import AsJson
from ctxkit.cli.output import STDOUT, emit_json, note, print_raw
from ctxkit.cli.settings import Settings

app = typer.Typer(help="What can run here; prepare a packaged model once.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that ctxkit knows by name. Any model folder or hub id works as well."""
    from dataclasses import asdict

    from ctxkit.models import available

    found = available(Settings().cache_dir)
    if as_json:
        emit_json([{**asdict(one), "where": str(one.where) if one.where else None} for one in found])
        return
    table = Table("name", "prepared", "window", "size", "licence", "where", box=SIMPLE_HEAD, pad_edge=False)
    for one in found:
        size = f"{one.size_bytes / 1e6:,.0f} MB" if one.size_bytes else ""
        where = str(one.where) if one.where else f"ctxkit models prepare {one.name}"
        table.add_row(one.name, "yes" if one.prepared else "no", f"{one.window_tokens:,}", size, one.licence, where)
    STDOUT.print(table)


@app.command("prepare")
def prepare_model(name: Annotated[str, typer.Argument(help="A name of `ctxkit models list`.")]) -> None:
    """Convert a packaged model into the cache folder, once (about a minute). Prints the folder."""
    from ctxkit.models import prepare

    note(f"preparing {name}")
    print_raw(f"{prepare(name, Settings().cache_dir, progress=True)}\n")
