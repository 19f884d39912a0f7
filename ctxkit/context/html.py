"""A plan in a notebook: one bar of the budget and a table. Escaped HTML, inline styles, no script, any theme."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ctxkit.context import report

if TYPE_CHECKING:
    from ctxkit.context.plan import Plan

# Mid-tone colours: white text reads on them in a light and in a dark notebook.
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
_OVERHEAD, _RESERVE = "#868e96", "repeating-linear-gradient(45deg,#adb5bd55 0 4px,transparent 4px 8px)"
_CELL = "padding:2px 8px;text-align:left;vertical-align:top;border:none"


def as_html(plan: Plan) -> str:
    return (
        f'<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:60em">'
        f"<div>{escape(report.headline(plan))}</div>{_bar(plan)}{_table(plan)}</div>"
    )


def _bar(plan: Plan) -> str:
    kinds = {decision.part.id: decision.part.kind for decision in plan.kept}
    pieces = [(name, tokens, _COLOURS.get(kinds.get(name, ""), _OVERHEAD)) for name, tokens in plan.charges()]
    pieces.append(("free", plan.free_tokens, "transparent"))
    pieces.append(("reserved for the answer", plan.budget.reserve_tokens, _RESERVE))
    inner = "".join(
        _piece(name, tokens, colour, plan.budget.window_tokens) for name, tokens, colour in pieces if tokens
    )
    return (
        '<div style="display:flex;height:18px;margin:6px 0;border:1px solid #868e96;border-radius:3px;'
        f'overflow:hidden" role="img" aria-label="{escape(report.headline(plan))}">{inner}</div>'
    )


def _piece(name: str, tokens: int, colour: str, window: int) -> str:
    label = escape(f"{name}: {tokens:,} tokens")
    return (
        f'<div title="{label}" style="width:{100 * tokens / window:.3f}%;background:{colour};'
        'box-shadow:inset -1px 0 #ffffff66"></div>'
    )


def _table(plan: Plan) -> str:
    rows = report.rows(plan)
    parts = [decision.part for decision in plan.decisions]
    named = [(part.kind, part.id) for part in parts] + [("", row[1]) for row in rows[len(parts) :]]
    body = "".join(_row(row, kind, name) for row, (kind, name) in zip(rows, named, strict=True))
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in ("", "part", "level", "tokens", "why"))
    return f'<table style="border-collapse:collapse;font-size:12px;color:inherit"><tr>{head}</tr>{body}</table>'


def _row(row: tuple[str, str, str, str, str], kind: str, id_: str) -> str:
    """One line; hovering over it shows the id that `plan.why` takes."""
    number, name, level, tokens, reason = map(escape, row)
    swatch = f'<span style="color:{_COLOURS.get(kind, _OVERHEAD)}">&#9632;</span>'
    faded = ";opacity:.6" if level == "dropped" else ""
    cells = (f"{swatch} {number}", name, level, tokens, reason)
    return (
        f'<tr title="{escape(id_)}" style="background:none{faded}">'
        + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
        + "</tr>"
    )
