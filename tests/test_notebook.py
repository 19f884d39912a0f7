"""The budget slider: moving the real widget plans again, and what cannot be planned is said, not raised."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import ipywidgets
import pytest

from ctxkit import Budget, Plan, fit, passage, question, system
from ctxkit.errors import BudgetError, MissingExtra
from ctxkit.notebook import budget_slider
from ctxkit.testing import WhitespaceCounter


@pytest.fixture
def plan() -> Plan:
    parts = [passage("word " * 20, id=f"p{i}", relevance=(i + 1) / 10) for i in range(6)]
    return fit([system("Answer."), *parts, question("?")], budget=Budget(80, 10), counter=WhitespaceCounter())


def pieces(box: Any) -> tuple[Any, Any, Any]:
    slider, changes, page = box.children
    assert isinstance(slider, ipywidgets.IntSlider)
    return slider, changes, page


def shown(page: Any) -> str:
    """The head of the plan that is shown."""
    found = re.search(r"[\d,]+ of [\d,]+ prompt tokens", page.value)
    assert found
    return found[0]


def test_it_starts_with_the_plan_as_it_is(plan: Plan) -> None:
    slider, changes, page = pieces(budget_slider(plan))
    assert (slider.value, slider.min) == (80, plan.minimum)
    assert page.value == plan._repr_html_()
    assert changes.value == ""


def test_moving_it_plans_again_and_says_what_changed(plan: Plan) -> None:
    slider, changes, page = pieces(budget_slider(plan, step=1))
    slider.value = 110
    later = plan.replan(window_tokens=110)
    assert page.value == later._repr_html_()
    assert "since a window of 80: entered: p" in changes.value
    slider.value = 60
    assert page.value == plan.replan(window_tokens=60)._repr_html_()
    assert "since a window of 110: left: p" in changes.value, "each step is told against the one before"


def test_at_its_highest_everything_is_in(plan: Plan) -> None:
    slider, _, page = pieces(budget_slider(plan))
    slider.value = slider.max
    assert not plan.replan(window_tokens=slider.max).dropped
    assert "dropped" not in page.value


def test_at_its_lowest_there_is_still_a_plan(plan: Plan) -> None:
    slider, _, page = pieces(budget_slider(plan))
    slider.value = slider.min
    assert shown(page) == f"{plan.minimum - 10} of {plan.minimum - 10} prompt tokens"


@pytest.mark.parametrize(("window", "named"), [(-1, "BudgetInfeasible"), (None, "BudgetError")])
def test_below_the_minimum_the_refusal_is_shown(plan: Plan, window: int | None, named: str) -> None:
    slider, changes, page = pieces(budget_slider(plan, lowest=1, step=1))
    slider.value = 5 if window is None else plan.minimum + window
    assert f"<b>{named}</b>" in page.value
    assert changes.value == ""
    if named == "BudgetInfeasible":
        assert f"The smallest window is {plan.minimum:,} tokens" in page.value
    slider.value = 90
    assert "since a window of 80" in changes.value, "a refusal is no plan to compare with"


def test_a_range_without_the_plan_s_own_window_starts_at_its_nearest_end(plan: Plan) -> None:
    slider, changes, page = pieces(budget_slider(plan, lowest=100, highest=200))
    assert slider.value == 100
    assert page.value == plan.replan(window_tokens=100)._repr_html_()
    assert "since a window of 80" in changes.value


@pytest.mark.parametrize("wrong", [{"lowest": 90, "highest": 50}, {"lowest": 0}, {"step": 0}])
def test_a_range_that_holds_no_window_is_refused(plan: Plan, wrong: dict[str, int]) -> None:
    with pytest.raises(BudgetError, match="holds no window"):
        budget_slider(plan, **wrong)


def test_names_are_escaped_in_changes_and_refusals() -> None:
    name = "<script>alert(1)</script>"
    parts = [system("x " * 30, id=name), passage("y", id=f"{name}2")]
    plan = fit(parts, budget=Budget(200), counter=WhitespaceCounter())
    slider, changes, page = pieces(budget_slider(plan, lowest=1, step=1))
    slider.value = plan.minimum
    assert "&lt;script&gt;" in changes.value and "<script>" not in changes.value
    slider.value = 3
    assert "&lt;script&gt;" in page.value and "<script>" not in page.value


def test_without_ipywidgets_the_extra_is_named(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingExtra, match=r"\.\[notebook\]"):
        budget_slider(plan)


def test_importing_it_needs_nothing_that_is_not_in_the_core() -> None:
    code = "import sys, ctxkit.notebook; print('ipywidgets' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
