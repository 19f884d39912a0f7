"""The heat map of `ctxkit models inspect`: a digit per head, coloured where the terminal has colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    import numpy as np

    from ctxkit.models.local.inspection import Inspection

_STYLES = ("bright_black", "blue", "blue", "cyan", "cyan", "green", "green", "yellow", "bright_yellow", "bright_red")
_GAP = "   "


def facts(seen: Inspection) -> Iterator[str]:
    """What a model is, a line each."""
    windows = sorted(set(seen.sliding.values()))
    yield f"{seen.name}: {seen.architecture}, {seen.dtype}"
    yield f"{seen.layers} layers, {seen.heads} heads on {seen.kv_heads} KV heads of {seen.dims} dimensions"
    yield f"trained window: {seen.window_tokens:,} tokens; keys and values: {seen.token_bytes:,} bytes per token"
    yield (
        "rotation: understood, tokens can be seen from elsewhere than where they stand"
        if seen.turnable
        else "rotation: not understood, tokens can only be seen from where they stand"
    )
    if windows:
        which = ", ".join(map(str, seen.sliding))
        yield f"layers that slide by themselves, by {', '.join(map(str, windows))} tokens: {which}"
    best = " ".join(f"{layer}.{head}" for layer, head in seen.retrieval_heads())
    yield f"retrieval heads (layer.KV head), best first: {best}"


def head_map(seen: Inspection, width: int) -> Iterator[Text]:
    """Two maps of layers by heads, side by side where `width` columns hold them."""
    maps = [
        _panel("rests on the first tokens", seen.profile.sink, seen.kv_heads),
        _panel("retrieves", seen.retrieves, seen.kv_heads),
    ]
    widths = [max(map(len, panel)) for panel in maps]
    numbers = [" " * 5, *(f"{layer:>5}" for layer in range(seen.layers))]
    groups = [maps] if len(numbers[0]) + sum(widths) + 2 * len(_GAP) <= width else [[one] for one in maps]
    for group in groups:
        for number, *cells in zip(numbers, *group, strict=True):
            yield _line(number, cells, [max(map(len, panel)) for panel in group])
        yield Text()
    yield Text("layers down, heads across by KV head; a digit is tenths of a head's attention, . is less than one")


def _panel(title: str, scores: np.ndarray, kv_heads: int) -> list[Text]:
    return [Text(title), *(_row(row.reshape(kv_heads, -1)) for row in scores)]


def _row(groups: np.ndarray) -> Text:
    """groups: [KV heads, heads in a group]."""
    line = Text()
    for number, group in enumerate(groups):
        line.append(" " if number else "")
        for score in group:
            tenths = min(9, int(10 * score + 1e-6))
            line.append(str(tenths) if tenths else ".", style=_STYLES[tenths])
    return line


def _line(number: str, cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text(number, style="dim") if number.strip() else Text(number)
    for cell, width in zip(cells, widths, strict=True):
        padded = cell.copy()
        padded.pad_right(width - len(cell))
        line = Text.assemble(line, _GAP, padded)
    line.rstrip()
    return line
