"""Decomposed prompting on its own data: with rules for models the result is exact, so any fault is the machine's.

A sample of each file; `benchmarks/agents/decomposed.py` has them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctxkit.context import Limits, Run
from ctxkit_agents.decomposed import Decomposed
from tests.agents.decomp_rules import Case, cases, comma, letters, reversal

EVERY = 30  # of the cases
WORLDS: dict[str, Callable[[], Decomposed]] = {"letter_cat": letters, "reverse": reversal, "commaqa_e": comma}


@pytest.fixture(scope="module")
def decomp(data_folder: Path) -> Path:
    folder = data_folder / "decomp"
    if not folder.is_dir():
        pytest.skip(f"no decomposed-prompting data at {folder}")
    return folder


def answered(method: Decomposed, case: Case, run: Run) -> list[str]:
    """The answer as a sorted list; sets have no order in the data."""
    outcome = method.task(case.question, passages=[case.passage] if case.passage else []).run(paid_by=run)
    assert not outcome.degraded
    answer = outcome.value.answer
    return sorted(answer) if isinstance(answer, list) else [answer]


@pytest.mark.parametrize("world", WORLDS)
def test_rules_for_models_give_exact_results(world: str, decomp: Path) -> None:
    files = sorted((decomp / world).glob("*.json"))
    assert files
    for file in files:
        method, limits = WORLDS[world](), Limits(tokens=20_000)
        for case in list(cases(file))[::EVERY]:
            run = Run(limits)
            assert answered(method, case, run) == sorted(case.answer), case.question
            assert run.spent.tokens <= 20_000 and run.report().reserved.tokens == 0


def test_a_reversal_recurses_only_where_a_leaf_cannot(decomp: Path) -> None:
    depths = {}
    for items in (4, 6, 8, 10):
        case = next(cases(decomp / "reverse" / f"test_{items}_normal_words.json"))
        trace = reversal().task(case.question).run().trace
        depths[items] = max(node.path.count("-reverse") for root in trace.roots for node in root.walk())
    assert depths == {4: 0, 6: 1, 8: 1, 10: 2}
