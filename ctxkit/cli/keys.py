"""`ctxkit keys`: API keys of `ctxkit serve`, made and read again while it runs."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxkit.cli.output import print_raw

if TYPE_CHECKING:
    from ctxkit.server.keys import ApiKeys

logger = logging.getLogger(__name__)

app = typer.Typer(help="API keys of `ctxkit serve`.", no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """API keys of `ctxkit serve`."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Whose it is; keys of one name share sessions and indexes.")] = "",
) -> None:
    """Make a key. It is shown once, on stderr; stdout is the line for the file of --api-key-file, which holds its hash
    only: `ctxkit keys new ann >> api-keys`."""
    from ctxkit.server.keys import new_key

    try:
        key, line = new_key(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print_raw(f"{line}\n")
    typer.echo(key, err=True)


def keys_of(path: Path | None) -> list[str]:
    """The lines of a key file. Raises BadParameter."""
    from ctxkit.server.keys import lines_of

    if path is None:
        return []
    try:
        return lines_of(path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--api-key-file: {error}") from error


def reload_on_hangup(keys: ApiKeys, path: Path | None, besides: Sequence[str]) -> None:
    """SIGHUP reads the file again. Without a file nothing is done, and the signal ends the process as ever."""
    if path is not None and hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: reload(keys, path, besides))


def reload(keys: ApiKeys, path: Path, besides: Sequence[str]) -> None:
    """The keys of the file, and those besides, instead of the ones before. A file that is wrong changes nothing."""
    from ctxkit.server.keys import lines_of

    try:
        keys.replace([*lines_of(path), *besides])
    except (OSError, ValueError) as error:
        logger.error("the API keys stay as they were: %s", error)
        return
    logger.info("the API keys were read again: %d", len(keys))
