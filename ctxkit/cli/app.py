"""The application: its commands, and how errors become one line and an exit code."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ctxkit import __version__
from ctxkit.cli import ask, bench, compress, config, count, index, keys, mcp, models, pack, plan, search, serve
from ctxkit.cli.output import fail
from ctxkit.errors import BudgetInfeasible, CtxkitError

app = typer.Typer(
    name="ctxkit",
    help="Fits the right context into any model's window, and proves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("pack")(pack.pack)
app.command("ask")(ask.ask)
app.command("plan")(plan.plan)
app.command("compress")(compress.compress)
app.command("count")(count.count)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")

_NAMED = 8  # parts that a refusal names
_debug = "--debug"
_LOG_FORMAT = "%(name)s: %(message)s"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctxkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(_debug, help="Log what happens and show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    handler = logging.StreamHandler()  # the level is the handler's: some libraries set their own loggers to DEBUG
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    handler.addFilter(lambda record: debug or record.levelno >= logging.ERROR or record.name.startswith("ctxkit."))
    logging.basicConfig(level=handler.level, handlers=[handler], format="%(message)s" if not debug else _LOG_FORMAT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files were skipped.

    arguments: without the program's name; those of the process by default. `--debug` may stand anywhere before `--`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = _debug in given[:end]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a narrow encoding is no reason to fail
    try:
        app([_debug] * debug + [one for one in given[:end] if one != _debug] + given[end:])
    except Exception as error:
        if debug:
            raise
        fail(_told(error))
        sys.exit(1)


def _told(error: Exception) -> str:
    """What went wrong, in the words of the command line."""
    if isinstance(error, BudgetInfeasible):
        return _too_small(error)
    if isinstance(error, CtxkitError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    return f"unexpected {type(error).__name__}: {error} ({_debug} shows the traceback)"


def _too_small(error: BudgetInfeasible) -> str:
    largest = sorted(error.by_part.items(), key=lambda item: -item[1])
    more = [f"and {len(largest) - _NAMED:,} more"] if len(largest) > _NAMED else []
    parts = ", ".join([f"{name} {tokens:,}" for name, tokens in largest[:_NAMED]] + more)
    needed = f"at least --budget {error.minimum:,} is needed"
    reserve = f" with --reserve {error.reserve_tokens:,}" if error.reserve_tokens else ""
    return f"a budget of {error.window_tokens:,} tokens is too small, {needed}{reserve} ({parts})"
