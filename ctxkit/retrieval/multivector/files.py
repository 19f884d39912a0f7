"""A folder of arrays: one .npy each, and a JSON that names them with their CRC32. Read back as memory maps.

The JSON is written last, under another name first: a folder has all of an engine or no `engine.json`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.errors import IndexMismatch, IndexNotFound, StoreError

NAME = "engine.json"
_FORMAT = 1
_CHUNK_BYTES = 1 << 22


def write_folder(folder: Path, kind: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` and `facts` (JSON values) into `folder`. Raises StoreError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).unlink(missing_ok=True)
        for name, array in arrays.items():
            _write(folder / f"{name}.npy", array)
        sums = {name: _crc32(folder / f"{name}.npy") for name in arrays}
        body = {"format": _FORMAT, "kind": kind, "facts": dict(facts), "crc32": sums}
        text = json.dumps({**body, "self_crc32": _crc32_of(body)}, indent=1)
        _replace(folder / NAME, text.encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error}") from error


def read_folder(folder: Path, *, verify: bool = True) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """The kind, facts and arrays (memory maps) of a folder that `write_folder` made.

    verify: read every file and compare its CRC32. Raises IndexNotFound, IndexMismatch (another format) and StoreError,
    which names the damaged file.
    """
    body = _read_manifest(folder)
    arrays = {}
    for name, expected in body["crc32"].items():
        path = folder / f"{name}.npy"
        try:
            if verify and (found := _crc32(path)) != expected:
                raise StoreError(
                    f"{path}: damaged: its CRC32 is {found:08x}, {NAME} says {expected:08x}. Build it anew"
                )
            arrays[name] = np.load(path, mmap_mode="r" if path.stat().st_size else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{path}: cannot be read: {error}. Build the engine anew") from error
    return body["kind"], body["facts"], arrays


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        body = json.loads(path.read_bytes())
        expected = body.pop("self_crc32")
    except FileNotFoundError as error:
        raise IndexNotFound(f"{folder}: no engine here: {NAME} is missing") from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(f"{path}: damaged: {error!r}. Build the engine anew") from error
    if _crc32_of(body) != expected:
        raise StoreError(f"{path}: damaged: its CRC32 does not match. Build the engine anew")
    if body["format"] != _FORMAT:
        raise IndexMismatch(f"{path}: format {body['format']!r}, this version reads {_FORMAT}. Build the engine anew")
    return body


def _write(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value


def _crc32_of(body: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
