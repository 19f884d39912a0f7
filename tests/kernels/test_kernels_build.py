"""The C++ sources are compiled into a cache, once; where that fails, another path runs and the log says why."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import pytest

from ctxkit_kernels import best_kernels, build, compiler
from ctxkit_kernels import native as native_kernels

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, compiler._COMPILERS)), reason="no C++ compiler on PATH")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    best_kernels.cache_clear()
    yield
    best_kernels.cache_clear()


@needs_compiler
def test_a_library_is_compiled_once_and_leaves_nothing_else(tmp_path: Path) -> None:
    library = build.compiled(tmp_path / "cache")
    before = library.stat().st_mtime_ns
    assert build.compiled(tmp_path / "cache") == library
    assert library.stat().st_mtime_ns == before
    assert list(library.parent.iterdir()) == [library]
    assert native_kernels.available(library)[-1] == "scalar"


@needs_compiler
def test_another_source_is_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiler.find_compiler()
    first = compiler.cached_name(found), compiler.packaged_name()
    for name in sorted(path.name for path in compiler.FOLDER.iterdir() if path.suffix in (".cpp", ".h")):
        folder = tmp_path / name
        shutil.copytree(compiler.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        with monkeypatch.context() as patch:
            patch.setattr(compiler, "FOLDER", folder)
            assert (compiler.cached_name(found), compiler.packaged_name()) == first
            with (folder / name).open("a") as file:
                file.write("\n")
            assert compiler.cached_name(found) != first[0]
            assert compiler.packaged_name() != first[1]


@needs_compiler
def test_a_library_that_came_with_the_package_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / compiler.packaged_name()
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    assert build.shared_library() == build.compiled()
    packaged.touch()
    assert build.shared_library() == packaged


@needs_compiler
def test_libraries_that_nobody_used_for_long_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compile_to", lambda compiler, library: library.touch())
    old, recent, other = (tmp_path / f"{name}{compiler.SUFFIX}" for name in ("kernels-1", "kernels-2", "mine"))
    for path in (old, recent, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    library = build.compiled(tmp_path)
    assert set(tmp_path.iterdir()) == {library, recent, other}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for the compiler")
def test_a_compiler_that_fails_is_named_with_its_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho no such header >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=r"c\+\+ failed: no such header"):
        build.compiled(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_another_path_runs_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        kernels = best_kernels()
        best_kernels()
    assert kernels.name in ("numba", "numpy")
    (message,) = [record.getMessage() for record in caplog.records if "kernels" in record.getMessage()]
    assert "no C++ compiler on PATH" in message


@needs_compiler
def test_a_path_that_the_processor_lacks_is_refused(tmp_path: Path) -> None:
    library = build.shared_library()
    missing = set(native_kernels.PATHS) - set(native_kernels.available(library))
    for path in missing:
        with pytest.raises(RuntimeError, match="cannot run"):
            native_kernels.NativeKernels(library, path)
