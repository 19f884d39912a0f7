"""Where things are printed: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

# Colour and width follow the terminal; piped output is plain and never wrapped into another shape.
STDOUT = Console(soft_wrap=True, highlight=False)
STDERR = Console(stderr=True, soft_wrap=True, highlight=False)


def emit_json(value: Any) -> None:
    """One JSON document on stdout."""
    print_raw(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_raw(text: str) -> None:
    """`text` on stdout as it is: no markup, no wrapping, no line end added."""
    STDOUT.file.write(text)
    STDOUT.file.flush()


def note(text: str) -> None:
    """A remark on stderr."""
    STDERR.print(text, style="dim", markup=False)


def fail(text: str) -> None:
    """An error on stderr, one line."""
    STDERR.print(f"ctxkit: {text}", style="red", markup=False)
