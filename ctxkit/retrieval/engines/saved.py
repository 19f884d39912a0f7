"""An engine as bytes: a line of JSON and arrays, with one CRC32 over everything.

faiss takes what it deserialises at its word: sizes that a damaged file states become allocations and addresses
(facebookresearch/faiss issue 5400). So nothing is handed to it before the CRC32 agrees. That guards against accidents,
not against an attacker, who can compute a CRC32: restore only what you wrote.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctxkit.errors import IndexMismatch, StoreError

FORMAT = 1
_MAGIC = b"ctxkiten"
_HEAD = struct.Struct("<8sII")  # magic, CRC32 of what follows the head, bytes of JSON
_ALIGNMENT_BYTES = 64


def pack(kind: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 [bytes] of `facts` (JSON values) and `arrays` under the name of the engine that wrote them."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in plain.items()}
    text = json.dumps({"format": FORMAT, "kind": kind, "facts": dict(facts), "arrays": shapes}).encode()
    parts = [text, *(array.data.cast("B") if array.size else b"" for array in plain.values())]
    starts, total = _places(len(text), [array.nbytes for array in plain.values()])
    state = np.zeros(total, np.uint8)
    for start, part in zip([_HEAD.size, *starts], parts, strict=True):
        state[start : start + len(part)] = np.frombuffer(part, np.uint8)
    state[: _HEAD.size] = np.frombuffer(_HEAD.pack(_MAGIC, zlib.crc32(state[_HEAD.size :].data), len(text)), np.uint8)
    return state


def unpack(state: np.ndarray | bytes, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The facts and arrays (views of `state`) that `pack` got.

    Raises StoreError where the bytes are damaged, IndexMismatch where another engine or format wrote them.
    """
    data = np.frombuffer(state, np.uint8)
    if len(data) < _HEAD.size:
        raise StoreError(f"the saved engine has {len(data)} bytes, its head alone {_HEAD.size}. Build the engine anew")
    magic, expected, length = _HEAD.unpack(data[: _HEAD.size].tobytes())
    if magic != _MAGIC:
        raise StoreError(f"this is no saved engine: it begins with {magic!r}, not {_MAGIC!r}. Build the engine anew")
    if (found := zlib.crc32(data[_HEAD.size :].data)) != expected:
        raise StoreError(
            f"the saved engine is damaged: its CRC32 is {found:08x}, {expected:08x} was written. Build the engine anew"
        )
    body = json.loads(data[_HEAD.size : _HEAD.size + length].tobytes())
    if (body["format"], body["kind"]) != (FORMAT, kind):
        raise IndexMismatch(
            f"a {body['kind']} of format {body['format']!r} was saved, a {kind} of format {FORMAT} was asked for. "
            "Restore it with the class that saved it, or build the engine anew"
        )
    return body["facts"], _arrays(data, length, body["arrays"])


def _arrays(data: np.ndarray, length: int, shapes: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    kinds = [(np.dtype(dtype), tuple(shape)) for dtype, shape in shapes.values()]
    sizes = [dtype.itemsize * int(np.prod(shape, dtype=np.int64)) for dtype, shape in kinds]
    starts, _ = _places(length, sizes)
    return {
        name: data[start : start + size].view(dtype).reshape(shape)
        for name, start, size, (dtype, shape) in zip(shapes, starts, sizes, kinds, strict=True)
    }


def _places(length: int, sizes: list[int]) -> tuple[list[int], int]:
    """Where the arrays begin behind head and JSON, each aligned for what reads it in place, and where all ends."""
    starts, end = [], _HEAD.size + length
    for size in sizes:
        starts.append(-(-end // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES)
        end = starts[-1] + size
    return starts, end
