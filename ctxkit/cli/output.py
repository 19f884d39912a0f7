"""Where things are printed: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

# Colour and width follow the terminal; piped output is plain and never wrapped into another shape.
STDOUT = Console(soft_wrap=True, highlight=False)
STDERR = Console(stderr=True, soft_wrap=True, highlight=False)


def in_colour() -> bool:
    """Whether stdout shows colours."""
    return STDOUT.is_terminal and STDOUT.color_system is not None and not STDOUT.no_color


def emit_json(value: Any) -> None:
    """One JSON document on stdout."""
    print_raw(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_raw(text: str) -> None:
    """`text` on stdout as it is: no markup, no wrapping, no line end added."""
    with _while_someone_reads():
        STDOUT.file.write(text)
        STDOUT.file.flush()


def note(text: str) -> None:
    """A remark on stderr."""
    STDERR.print(text, style="dim", markup=False)


def fail(text: str) -> None:
    """An error on stderr, one line."""
    STDERR.print(f"ctxkit: {' '.join(text.split())}", style="red", markup=False)


@contextmanager
def _while_someone_reads() -> Iterator[None]:
    """Ends the command quietly when the reader of a pipe goes away (`ctxkit pack ... | head`): that is its right."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would flush into the pipe
        raise typer.Exit from None
