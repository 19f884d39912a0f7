"""Indexes that take long to make, kept beside the vectors they were made of, so that the next process need not.

They are copies: a file that is damaged or out of date is named in the log and made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.retrieval.storage import array_file

FOLDER = "ann"

_log = logging.getLogger(__name__)


def load(index_folder: Path, engine: str) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """Numbers of the documents (int64, rising) and the engine's states as `save` took them; None where none is kept."""
    path = _path(index_folder, engine)
    if not path.is_file():
        return None
    try:
        _, arrays = array_file.read(path)
        return arrays.pop("numbers"), arrays
    except (StoreError, KeyError) as error:
        _log.warning("%s: is made anew: %s", path, error)
        return None


def save(index_folder: Path, engine: str, numbers: np.ndarray, states: Mapping[str, np.ndarray]) -> None:
    """Keeps states (uint8 arrays by name) for these documents. Where the disk says no the log says so."""
    path = _path(index_folder, engine)
    try:
        array_file.write(path, {**states, "numbers": numbers})
    except StoreError as error:
        _log.warning("%s: not kept: %s", path, error)


def _path(index_folder: Path, engine: str) -> Path:
    return index_folder / FOLDER / f"{engine}.safetensors"
