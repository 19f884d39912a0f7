"""`ctxkit config`: what the settings are, and where each comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.main import get_command

from ctxkit.cli.options import AsJson
from ctxkit.cli.output import emit_json, note, print_raw
from ctxkit.cli.serve import flags_of, serve
from ctxkit.cli.settings import file_in_use, shown

app = typer.Typer(help="The settings of ctxkit.toml, of CTXKIT_* variables and of flags.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    """The settings of ctxkit.toml, of CTXKIT_* variables and of flags."""


@app.command("show", context_settings={"ignore_unknown_options": True})
def show(
    flags: Annotated[
        list[str] | None, typer.Argument(help="Flags of `ctxkit serve`, to see what it would start with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting, its value and where it comes from: flag, environment, file or default. Secrets are "set" or
    "not set"."""
    found = shown(_parsed(flags or []))
    file = file_in_use()
    if as_json:
        emit_json({"file": None if file is None else str(file), "settings": [asdict(one) for one in found]})
        return
    note(f"file: {file}" if file else "no ctxkit.toml here, and no CTXKIT_CONFIG")
    rows = [(one.name, _written(one.value), one.origin) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    print_raw("".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}\n" for name, value, origin in rows))


def _parsed(flags: list[str]) -> dict[str, Any]:
    """Raises what a wrong flag of `ctxkit serve` raises."""
    probe = typer.Typer()
    probe.command("serve")(serve)
    return flags_of(get_command(probe).make_context("ctxkit serve", flags).params)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
