"""The application: its commands, and how errors become one line and an exit code."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from ctxkit import __version__
from ctxkit.cli import ask, count, index, models, pack, plan
from ctxkit.cli.output import fail
from ctxkit.errors import CtxkitError

app = typer.Typer(
    name="ctxkit",
    help="Fits the right context into any model's window, and proves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("index")(index.index)
app.command("pack")(pack.pack)
app.command("ask")(ask.ask)
app.command("plan")(plan.plan)
app.command("count")(count.count)
app.add_typer(models.app, name="models")

_debug = "--debug"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctxkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(_debug, help="Log what happens and show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    handler = logging.StreamHandler()  # the level is the handler's: some libraries set their own loggers to DEBUG
    handler.setLevel(logging.DEBUG if debug else logging.ERROR)
    logging.basicConfig(level=handler.level, handlers=[handler], format="%(name)s: %(message)s")


def main() -> None:
    """Run the command. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files were skipped."""
    try:
        app()
    except CtxkitError as error:
        if _debug in sys.argv:
            raise
        fail(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe went away (`ctxkit pack ... | head`): that is its right, not our failure.
        sys.stdout = None  # or the interpreter would flush into the closed pipe
        sys.exit(0)
