"""docs/command-line.md says what the commands say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ctxkit.cli.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "command-line.md"


def test_the_page_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = PAGE.read_text(encoding="utf-8")
    assert page == generate.regenerated(page), "docs/command-line.md is stale. Run: python docs/generate.py"
    below = page.partition(generate.MARK)[2]
    assert max(map(len, below.splitlines())) <= generate.WIDTH


def test_check_writes_nothing_and_agrees() -> None:
    before = PAGE.stat().st_mtime_ns
    run = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert PAGE.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_variable_is_on_the_page(name: str) -> None:
    assert f"| `CTXKIT_{name.upper()}` |" in PAGE.read_text(encoding="utf-8")
