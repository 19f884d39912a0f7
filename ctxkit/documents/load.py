"""From a file to documents."""

from __future__ import annotations

import os
from pathlib import Path

from ctxkit.documents.document import Document
from ctxkit.documents.loaders import LOADERS, text
from ctxkit.documents.walk import MAX_BYTES, size_reason
from ctxkit.errors import DocumentError


def load(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, *, max_bytes: int = MAX_BYTES
) -> list[Document]:
    """The documents of one file: one for most formats, one per record for JSON lines.

    path: the file; its suffix decides the loader, an unknown one is read as text.
    root: folder that the documents' `source` is relative to; by default the file's own folder.
    max_bytes: a larger file is refused before anything is read.

    Raises DocumentError (a missing, unreadable, too large, binary, empty, broken or wrongly encoded file; `reason` is
    one line) and MissingExtra (HTML and PDF need the extra `retrieval`).
    """
    file = Path(path)
    source = source_name(file, root)
    data = _read(file, source, max_bytes)
    return LOADERS.get(file.suffix.lower(), text.load)(data, source)


def source_name(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> str:
    """`path` relative to `root` with forward slashes; the path as given where it is not below `root`."""
    file = Path(path)
    if root is None:
        return file.name
    absolute, base = Path(os.path.abspath(file)), Path(os.path.abspath(root))
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else file.as_posix()


def _read(file: Path, source: str, max_bytes: int) -> bytes:
    try:
        if not file.is_file():
            raise DocumentError(source, "not a regular file" if file.exists() else "no such file")
        size = file.stat().st_size
        if size > max_bytes:
            raise DocumentError(source, size_reason(size, max_bytes))
        return file.read_bytes()
    except OSError as error:
        raise DocumentError(source, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
