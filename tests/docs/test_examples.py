"""The examples run as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "fit_a_conversation.py"
AGENT = ROOT / "examples" / "agent_in_a_small_window.py"
NOTEBOOK = ROOT / "examples" / "ask_your_documents.ipynb"


def test_every_example_is_tested() -> None:
    examples = {path for path in SCRIPT.parent.iterdir() if path.suffix in (".py", ".ipynb")}
    assert examples == {SCRIPT, AGENT, NOTEBOOK}


def test_the_conversation_is_fitted(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = {words[0]: words for words in map(str.split, run.stdout.splitlines()) if len(words) > 1}
    assert rows["moselle"][1] == rows["moselle-gauge"][1] == "dropped"  # a call and its result leave together
    assert rows["rhine"][1] == rows["rhine-gauge"][1] == "full"
    assert "without floor and cap: entered: facts; left: " in run.stdout
    assert "Raise `window_tokens` to 21" in run.stdout


def test_the_agent_stays_in_its_window_and_gets_back_what_was_left_out(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, AGENT], cwd=tmp_path, capture_output=True, text=True, check=True)
    prompts = [line.replace(",", "").split() for line in run.stdout.splitlines() if " tokens; reuses " in line]
    assert len(prompts) == 6 and all(int(words[0]) <= int(words[2]) == 1_140 for words in prompts)
    assert "everything is sent as before, and what is new follows" in run.stdout
    assert "compacted to " in run.stdout
    rows = {words[0]: words for words in map(str.split, run.stdout.splitlines()) if len(words) > 1}
    assert rows["m3"][1] == "content" and rows["m11"][1] == "full"  # the log is reduced, the lines asked for are whole
    assert "12:00:17 ERROR pool exhausted" in run.stdout.partition("what `expand` gave back:")[2]
    assert "to have it whole, " in run.stdout


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in _notebook().cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def test_the_notebook_answers_with_a_plan_and_sources(
    tmp_path: Path, model_is_prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not model_is_prepared:
        pytest.skip("needs the local model: ctxkit models prepare smollm2-135m-instruct")
    for name, value in (("IPYTHONDIR", "ipython"), ("JUPYTER_CONFIG_DIR", "config"), ("JUPYTER_RUNTIME_DIR", "run")):
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    folder.mkdir()
    notebook = _notebook()
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(shown) == 1 and "prompt tokens" in shown[0]  # the plan
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "docs/budget.md:" in printed
    assert "answer tokens" in printed


def _notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)
