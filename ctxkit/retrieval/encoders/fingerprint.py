"""A cheap name for the content of a model folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

_EDGE_BYTES = 1 << 20
_WEIGHTS = {".safetensors", ".bin", ".pt", ".onnx", ".gguf"}
_SETTINGS = {".json", ".txt", ".model"}


def folder_fingerprint(folder: Path) -> str:
    """Hash of names, sizes and content of the model files in `folder`, hex, 128 bits.

    Settings and vocabularies are read whole; weights by their size, first and last MiB (the first holds the header of
    a safetensors file, with the shape and place of every tensor). Training moves all weights, so both ends change.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS | _SETTINGS and path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        digest.update(_edges(path, size) if path.suffix in _WEIGHTS else path.read_bytes())
    return digest.hexdigest()


def _edges(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        first = file.read(_EDGE_BYTES)
        file.seek(max(size - _EDGE_BYTES, 0))
        return first + file.read(_EDGE_BYTES)
