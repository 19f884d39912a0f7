"""Compiles the C++ sources, into one library. Standard library only: the build of the package runs it by itself."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent  # of the sources, and of a library that came with the package
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-pthread", "-fvisibility=hidden", "-w")
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_SECONDS = 300


def find_compiler() -> str:
    """The first C++ compiler on PATH. Raises RuntimeError where there is none."""
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise RuntimeError(f"no C++ compiler on PATH (looked for {', '.join(_COMPILERS)})")
    return found


def packaged_name() -> str:
    """What the package build calls the library: another source, or another architecture, is another name."""
    return f"kernels-{_hexdigest(platform.machine())}{SUFFIX}"


def cached_name(compiler: str) -> str:
    """What the library is called in a cache: besides, another compiler, by its size and date, is another name."""
    stat = os.stat(compiler)
    made_by = f"{os.path.realpath(compiler)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{platform.machine()}"
    return f"kernels-{_hexdigest(made_by)}{SUFFIX}"


def compile_to(compiler: str, library: Path) -> None:
    """Atomic: two processes may do it at once, and each sees the whole file or none. Raises RuntimeError, one line."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as place:
            made = Path(place) / library.name
            objects = {source: Path(place) / f"{source.stem}.o" for source in sorted(FOLDER.glob("*.cpp"))}
            with ThreadPoolExecutor(os.cpu_count()) as together:
                list(together.map(lambda one: _run(compiler, "-c", str(one[0]), "-o", str(one[1])), objects.items()))
            _run(compiler, "-shared", *map(str, objects.values()), "-o", str(made))
            os.replace(made, library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"cannot compile with {compiler}: {error}") from error


def _run(compiler: str, *arguments: str) -> None:
    command = [compiler, *FLAGS, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    if run.returncode:
        raise RuntimeError(f"{compiler} failed: {(run.stderr.strip().splitlines() or ['no message'])[0]}")


def _hexdigest(made_by: str) -> str:
    sources = b"\0".join(path.read_bytes() for path in sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")]))
    return hashlib.blake2b(sources + f"{made_by}\0{FLAGS}".encode(), digest_size=16).hexdigest()
