"""What loading a model takes: the packages, and no bar on the terminal."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from ctxkit.errors import MissingExtra


def needed(module: str, extra: str, package: str | None = None) -> None:
    """Raises MissingExtra where the module is not installed. package: what it is installed as. Imports nothing."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(package or module, extra)


@contextmanager
def no_loading_bar() -> Iterator[None]:
    """transformers without the bar that it shows while it loads weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
