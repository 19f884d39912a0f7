"""Widgets for a notebook: a plan under a window that is moved by hand. Needs the extra `notebook`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ctxkit.context import report
from ctxkit.errors import BudgetError, BudgetInfeasible, CtxkitError, MissingExtra

if TYPE_CHECKING:
    import ipywidgets

    from ctxkit.context import Plan

_STEPS = 200  # of the slider, where no step is given


def budget_slider(
    plan: Plan, *, lowest: int | None = None, highest: int | None = None, step: int | None = None
) -> ipywidgets.Widget:
    """A slider over `window_tokens`; below it the plan for that window, and what changed since the one shown before.

    lowest: by default the smallest window for which there is a plan; below that the refusal is shown.
    highest: by default a window that holds every part whole. step: by default a 200th of the way.

    Its children are the slider, the changes and the plan (ipywidgets.IntSlider, HTML, HTML). Moving it counts no text
    twice. Raises BudgetError for a range that holds no window, MissingExtra where ipywidgets is not installed.
    """
    widgets = _ipywidgets()
    low = plan.minimum if lowest is None else lowest
    high = max(plan.budget.window_tokens, _window_for_all(plan), low) if highest is None else highest
    if not 0 < low <= high or (step is not None and step < 1):
        raise BudgetError(f"`lowest` ({low!r}) to `highest` ({high!r}) in steps of {step!r} holds no window")
    slider = widgets.IntSlider(
        value=min(max(plan.budget.window_tokens, low), high),
        min=low,
        max=high,
        step=step or max((high - low) // _STEPS, 1),
        description="window",
        readout_format=",d",
        layout=widgets.Layout(width="60em", max_width="100%"),
    )
    shown = _Shown(plan, changes=widgets.HTML(), page=widgets.HTML(plan._repr_html_()))
    if slider.value != plan.budget.window_tokens:
        shown.move(slider.value)
    slider.observe(lambda change: shown.move(change["new"]), names="value")
    return widgets.VBox([slider, shown.changes, shown.page])


@dataclass
class _Shown:
    """The plan that was shown last, and where it is shown."""

    plan: Plan
    changes: Any
    page: Any

    def move(self, window_tokens: int) -> None:
        """The plan for that window, or why there is none."""
        try:
            later = self.plan.replan(window_tokens=window_tokens)
        except CtxkitError as refusal:
            self.changes.value, self.page.value = "", _refused(refusal)
            return
        told = f"since a window of {self.plan.budget.window_tokens:,}: {report.changes(later.diff(self.plan))}"
        self.changes.value, self.page.value = f"<div>{escape(told)}</div>", later._repr_html_()
        self.plan = later


def _refused(refusal: CtxkitError) -> str:
    told = report.on_one_line(str(refusal))
    if isinstance(refusal, BudgetInfeasible):
        told = f"{told} The smallest window is {refusal.minimum:,} tokens."
    return (
        '<div style="border-left:4px solid #e03131;padding:4px 10px;max-width:60em;color:inherit">'
        f"<b>{type(refusal).__name__}</b>: {escape(told)}</div>"
    )


def _window_for_all(plan: Plan) -> int:
    """About the window at which every part is in whole."""
    overhead = plan.template_tokens + plan.tools_tokens + plan.budget.reserve_tokens
    return overhead + sum(max(decision.full_tokens, decision.tokens) for decision in plan.decisions)


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError as error:
        raise MissingExtra("ipywidgets", "notebook") from error
    return ipywidgets
