"""Compiles the C++ source once per machine, compiler and version of the source, into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

SOURCE = Path(__file__).with_name("multivector.cpp")
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-w")
_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_SECONDS = 300
_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def compiled(folder: Path | None = None) -> Path:
    """The shared library for this machine, compiled if it is not in `folder` (the user's cache) yet.

    Raises RuntimeError, with the reason in one line, where there is no compiler or it fails.
    """
    compiler = _compiler()
    folder = folder or user_cache_path("ctxkit") / "kernels"
    library = folder / f"multivector-{_digest(compiler)}{_SUFFIX}"
    if not library.is_file():
        _compile(compiler, library)
    return library


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise RuntimeError(f"no C++ compiler on PATH (looked for {', '.join(_COMPILERS)})")
    return found


def _digest(compiler: str) -> str:
    """Of the source, the flags, the compiler with its size and date, and the machine's architecture."""
    stat = os.stat(compiler)
    made_by = f"{os.path.realpath(compiler)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{platform.machine()}\0{FLAGS}"
    return hashlib.blake2b(SOURCE.read_bytes() + made_by.encode(), digest_size=16).hexdigest()


def _compile(compiler: str, library: Path) -> None:
    """Atomic: two processes may do it at once, and each sees the whole file or none."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as place:
            made = Path(place) / library.name
            command = [compiler, *FLAGS, str(SOURCE), "-o", str(made)]
            run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
            if run.returncode:
                raise RuntimeError(f"{compiler} failed: {(run.stderr.strip().splitlines() or ['no message'])[0]}")
            os.replace(made, library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"cannot compile with {compiler}: {error}") from error
