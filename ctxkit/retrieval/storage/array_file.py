"""Arrays in one file that knows whether it is whole: written once, read through mmap, any damaged byte detected.

The file is a safetensors file, which other tools can read. Its metadata hold JSON facts, the CRC32 of the data and the
CRC32 of the header itself.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.errors import StoreError

TEMPORARY = ".tmp"

_DTYPES = {
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "U32": np.uint32,
    "I16": np.int16,
    "U16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNED = 64
_CHUNK_BYTES = 1 << 22
_LENGTH_BYTES = 8
_AGAIN = "Index the folder again"


class FileGone(StoreError):
    """A file of arrays is missing: deleted by a later write, or lost."""


def write(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> int:
    """Make `path` durable: another name first, fsync, rename, fsync of the folder. Returns its size in bytes.

    facts: JSON values. Raises StoreError where the disk says no; `path` is then what it was before.
    """
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)  # so that each begins aligned
    whole = {name: np.ascontiguousarray(array) for name, array in ordered}
    header = _header(whole, facts or {})
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        _make_folder(path.parent)
        with temporary.open("wb") as file:
            file.write(header)
            for array in whole.values():
                file.write(_bytes(array))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    return len(header) + sum(array.nbytes for array in whole.values())


def read(path: Path, *, verify: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The facts and the arrays (read-only, mapped from the file) that `write` was given.

    verify: compare the CRC32 of the data, which reads the whole file. Raises FileGone, and StoreError that names the
    file where it is damaged.
    """
    try:
        with path.open("rb") as file:
            header, length = _read_header(file.read(_LENGTH_BYTES), file.read)
        mapped = np.memmap(path, np.uint8, mode="r").view(np.ndarray)  # memmap's own slicing is slow
    except FileNotFoundError as error:
        raise FileGone(f"{path}: the file is missing. {_AGAIN}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: damaged, or no file of an index ({error}). {_AGAIN}") from error
    facts, expected = header.pop("__metadata__")
    data = mapped[length:]
    if len(data) != sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()):
        raise StoreError(f"{path}: damaged: {len(mapped):,} bytes are too many or too few. {_AGAIN}")
    if verify and (found := _crc32(data)) != expected:
        raise StoreError(f"{path}: damaged: the CRC32 of its data is {found:08x}, not {expected:08x}. {_AGAIN}")
    return facts, {name: _array(data, entry) for name, entry in header.items()}


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    if os.name != "posix":  # other systems neither need nor allow it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _header(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> bytes:
    entries: dict[str, Any] = {}
    at = crc = 0
    for name, array in arrays.items():
        offsets = [at, at + array.nbytes]
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        at += array.nbytes
        crc = _crc32(array.reshape(-1).view(np.uint8), crc)
    return _encoded(entries, {"facts": json.dumps(dict(facts), sort_keys=True), "crc32": f"{crc:08x}"})


def _encoded(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The header with its own CRC32, padded so that the data begin aligned; the same input, the same bytes."""
    own = zlib.crc32(json.dumps([entries, dict(metadata)], sort_keys=True).encode())
    body = {"__metadata__": {**metadata, "header_crc32": f"{own:08x}"}, **entries}
    text = json.dumps(body, separators=(",", ":"))
    size = -(-(_LENGTH_BYTES + len(text)) // _ALIGNED) * _ALIGNED - _LENGTH_BYTES
    return size.to_bytes(_LENGTH_BYTES, "little") + text.ljust(size).encode()


def _read_header(length: bytes, read: Any) -> tuple[dict[str, Any], int]:
    """Entries, with (facts, CRC32 of the data) for metadata, and where the data begin. Raises ValueError."""
    size = int.from_bytes(length, "little")
    if size > _CHUNK_BYTES:
        raise ValueError(f"a header of {size:,} bytes")
    raw = read(size)
    body = json.loads(raw)
    metadata = body.pop("__metadata__")
    own = metadata.pop("header_crc32")
    if _encoded(body, metadata) != length + raw:
        raise ValueError(f"the header is not the one whose CRC32 is {own}")
    body["__metadata__"] = (json.loads(metadata["facts"]), int(metadata["crc32"], 16))
    return body, _LENGTH_BYTES + size


def _array(data: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    return data[first:last].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8).data


def _crc32(data: np.ndarray, value: int = 0) -> int:
    for at in range(0, len(data), _CHUNK_BYTES):
        value = zlib.crc32(data[at : at + _CHUNK_BYTES].data, value)
    return value
