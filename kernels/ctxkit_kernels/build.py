"""The compiled library: the one that came with the package, or one compiled once into the user's cache folder."""

from __future__ import annotations

import time
from pathlib import Path

from platformdirs import user_cache_path

from ctxkit_kernels.compiler import FOLDER, SUFFIX, cached_name, compile_to, find_compiler, packaged_name

_KEPT_SECONDS = 30 * 24 * 3600  # a library of another source or compiler that nobody used for so long is deleted


def shared_library() -> Path:
    """The shared library for this machine. Raises RuntimeError, with the reason in one line, where it cannot be had."""
    packaged = FOLDER / packaged_name()
    return packaged if packaged.is_file() else compiled()


def compiled(folder: Path | None = None) -> Path:
    """The library in `folder` (the user's cache), compiled if it is not there yet. Raises as `shared_library`."""
    compiler = find_compiler()
    folder = folder or user_cache_path("ctxkit") / "kernels"
    found = folder / cached_name(compiler)
    if not found.is_file():
        compile_to(compiler, found)
        _prune(folder, found)
    return found


def _prune(folder: Path, current: Path) -> None:
    """Delete what earlier versions compiled. One that a process has loaded stays usable to it, or cannot be deleted."""
    for path in folder.glob(f"kernels-*{SUFFIX}"):
        try:
            if path != current and time.time() - path.stat().st_atime > _KEPT_SECONDS:
                path.unlink()
        except OSError:
            continue
