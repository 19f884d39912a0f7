"""Every example of agents runs on the embedded model, and says what it cost."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxkit.errors import ModelNotPrepared
from ctxkit_agents import Outcome

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples" / "agents").glob("*.py"))


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    from ctxkit.models.local import LocalModel

    try:
        yield LocalModel.load()
    except ModelNotPrepared:
        pytest.skip("needs the local model: ctxkit models prepare smollm2-135m-instruct")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(path: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcome = module.main(model)
    assert isinstance(outcome, Outcome) and outcome.spent.calls >= 1
    assert capsys.readouterr().out.strip()
    assert f"examples/agents/{path.name}" in (module.__doc__ or "")
