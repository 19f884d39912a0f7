"""A plan in a notebook: one bar of the budget and a table. Escaped HTML, inline styles, no script, any theme."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ctxkit.context import report

if TYPE_CHECKING:
    from ctxkit.context.plan import Plan

# Mid-tone colours: they stand out from a light and from a dark notebook. Text has the notebook's own colour.
_COLOURS = {
    "system": "#4c6ef5",
    "instruction": "#7048e8",
    "memory": "#ae3ec9",
    "passage": "#0c8599",
    "turn": "#2b8a3e",
    "tool_call": "#d9480f",
    "tool_result": "#e8590c",
    "question": "#c2255c",
}
_OVERHEAD, _LINE = "#868e96", "#868e96"
_RESERVE = "repeating-linear-gradient(45deg,#868e9666 0 4px,transparent 4px 8px)"
_CELL = "padding:2px 8px;text-align:left;vertical-align:top;border:none"
_NAME = f"{_CELL};overflow-wrap:anywhere;min-width:8em;max-width:24em"
_NUMBER = f"{_CELL};text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"
_CELLS = (f"{_CELL};white-space:nowrap", _NAME, f"{_CELL};white-space:nowrap", _NUMBER, _CELL)
_NARROW = 0.4  # percent of the bar below which a piece has no edge of its own
_REPAIRS = 50


def as_html(plan: Plan) -> str:
    rows = report.rows(plan)
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:70em;color:inherit">'
        f"<div>{escape(report.headline(plan))}</div>{_bar(plan, rows)}{_table(rows)}{_repairs(plan)}</div>"
    )


def _bar(plan: Plan, rows: list[report.Row]) -> str:
    pieces = [(_told(row), row.tokens, _background(row)) for row in rows]
    pieces.append((f"free: {plan.free_tokens:,} tokens", plan.free_tokens, "transparent"))
    reserve = plan.budget.reserve_tokens
    pieces.append((f"reserved for the answer: {reserve:,} tokens", reserve, _RESERVE))
    window = plan.budget.window_tokens
    inner = "".join(_piece(told, 100 * tokens / window, background) for told, tokens, background in pieces if tokens)
    return (
        f'<div style="display:flex;height:18px;margin:6px 0;border:1px solid {_LINE};border-radius:3px;'
        f'overflow:hidden" role="img" aria-label="{escape(report.headline(plan))}">{inner}</div>'
    )


def _piece(told: str, percent: float, background: str) -> str:
    edge = ";box-shadow:inset -1px 0 #ffffff99" if percent >= _NARROW else ""
    return f'<div title="{escape(told)}" style="width:{percent:.3f}%;background:{background}{edge}"></div>'


def _colour(row: report.Row) -> str:
    return _COLOURS[row.decision.part.kind] if row.decision else _OVERHEAD


def _background(row: report.Row) -> str:
    """The kind's colour, hatched where the part is reduced."""
    colour = _colour(row)
    if row.decision is None or not report.is_reduced(row.decision):
        return colour
    return f"repeating-linear-gradient(45deg,{colour} 0 4px,{colour}80 4px 8px)"


def _told(row: report.Row) -> str:
    """What hovering shows: the id that `plan.why` takes, what became of it, and the reason."""
    _, name, _, tokens, reason = row.cells
    if row.decision is None:
        return f"{name}: {tokens} tokens; {reason}"
    part = row.decision.part
    partly = row.dropped or report.is_reduced(row.decision)
    share = f"{tokens} of {row.decision.full_tokens:,} tokens" if partly else f"{tokens} tokens"
    return f"{report.on_one_line(part.id)} ({part.kind}): {row.cells[2]}, {share}; {reason}"


def _table(rows: list[report.Row]) -> str:
    names = ("", "part", "level", "tokens", "why")
    head = "".join(f'<th style="{style}">{name}</th>' for name, style in zip(names, _CELLS, strict=True))
    return (
        '<table style="border-collapse:collapse;font-size:12px;color:inherit;margin:0"><tr style="background:none">'
        f"{head}</tr>{''.join(map(_row, rows))}</table>"
    )


def _row(row: report.Row) -> str:
    number, name, level, tokens, reason = map(escape, row.cells)
    swatch = f'<span style="color:{_colour(row)}">&#9632;</span>'
    faded = ";opacity:.6" if row.dropped else ""
    cells = (f"{swatch} {number}", name, level + _kept(row), tokens, reason)
    inner = "".join(f'<td style="{style}">{cell}</td>' for cell, style in zip(cells, _CELLS, strict=True))
    return f'<tr title="{escape(_told(row))}" style="background:none{faded}">{inner}</tr>'


def _kept(row: report.Row) -> str:
    """Of a reduced part: how much of it is in, as a small bar."""
    if row.decision is None or not report.is_reduced(row.decision):
        return ""
    percent = 100 * report.share_kept(row.decision)
    return (
        f'<div style="width:64px;height:4px;border:1px solid {_LINE};border-radius:2px">'
        f'<div style="width:{percent:.1f}%;height:100%;background:{_colour(row)}"></div></div>'
    )


def _repairs(plan: Plan) -> str:
    if not plan.repairs:
        return ""
    more = len(plan.repairs) - _REPAIRS
    told = [*plan.repairs[:_REPAIRS], *([f"... and {more:,} more"] if more > 0 else [])]
    items = "".join(f"<li>{escape(report.on_one_line(one))}</li>" for one in told)
    noun = "repair" if len(plan.repairs) == 1 else "repairs"
    return f"<details><summary>{len(plan.repairs):,} {noun} of the conversation</summary><ul>{items}</ul></details>"
