"""Loads a model of sentence-transformers, quietly, with ctxkit's errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ctxkit.errors import MissingExtra, ModelNotFound


class LazyModel:
    """A model of sentence-transformers that `_load` loads when `_model` is first asked for: once, in whatever thread.

    name_or_path: a local folder or a hub id.
    device: as torch names it; None takes a GPU where there is one.
    batch_size: texts per forward pass. Raises ValueError below 1.
    """

    def __init__(self, name_or_path: str | Path, device: str | None = None, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size!r}")
        self._name = str(name_or_path)
        self._device = device
        self._batch_size = batch_size
        self._loading = threading.Lock()
        self._loaded: Any = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def _model(self) -> Any:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> Any:
        raise NotImplementedError


def load_model(
    kind: str,
    name: str,
    device: str | None,
    *,
    expected: str = "a folder that sentence-transformers saved, or a hub id",
) -> Any:
    """The model `name` as the class `kind` of sentence-transformers.

    name: a local folder, which is never looked up on a hub, or a hub id.
    device: as torch names it; None takes a GPU where there is one.
    expected: what the error says to give instead of `name`.

    Raises MissingExtra where sentence-transformers is absent and ModelNotFound where the model cannot be had.
    """
    library = needed("sentence_transformers", "sentence-transformers")
    folder = local_folder(name)
    try:
        with _no_loading_bar():
            return getattr(library, kind)(str(folder or name), device=device, local_files_only=folder is not None)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFound(f"{name!r} cannot be loaded as a {kind}: {error}. Give {expected}") from error


def local_folder(name: str) -> Path | None:
    """The folder that `name` names, None where it is a hub id."""
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def needed(module: str, package: str) -> Any:
    """The module. Raises MissingExtra where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(package, "retrieval") from error


@contextmanager
def _no_loading_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
