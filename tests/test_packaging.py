"""What is built holds every file of the four packages, from the checkout and from the sdist alike."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from ctxkit_kernels import compiler

FOLDERS = ("ctxkit", "connectors/ctxkit_connectors", "agents/ctxkit_agents", "kernels/ctxkit_kernels")


def build(folder: Path, target: str, to: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(to)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (made,) = to.iterdir()
    return made


def packaged(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_and_the_wheel_of_the_sdist_hold_every_file(repository: Path, tmp_path: Path) -> None:
    expected = {
        path.relative_to((repository / folder).parent).as_posix()
        for folder in FOLDERS
        for path in (repository / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    in_checkout = len(expected)
    if any(map(shutil.which, compiler._COMPILERS)):
        expected.add(f"ctxkit_kernels/{compiler.packaged_name()}")
    wheel = build(repository, "wheel", tmp_path / "wheel")
    assert packaged(wheel) == expected
    assert wheel.name.endswith("-any.whl") == (len(expected) == in_checkout)
    assert not list(repository.glob("kernels/ctxkit_kernels/kernels-*")), "the checkout stays as it was"
    sdist = build(repository, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert packaged(build(unpacked, "wheel", tmp_path / "again")) == expected
