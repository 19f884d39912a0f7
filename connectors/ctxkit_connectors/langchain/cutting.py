"""A part of a message, where the whole does not fit: whole blocks, else a text cut between two graphemes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from ctxkit.tokens.blocks import MEDIA_TYPES
from ctxkit.tokens.graphemes import cluster_interiors
from ctxkit_connectors.langchain.rounds import Unit

Splitter = Callable[[str], list[str]]


def longest(size: int, fits: Callable[[int], bool]) -> int:
    """The largest n of 1 .. size that fits, where smaller ones fit too; 0 where none does. Asks O(log size) times."""
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def cut_unit(unit: Unit, fits: Callable[[Unit], bool], splitter: Splitter | None, *, from_end: bool) -> Unit | None:
    """A part of the unit that fits; of a tool round the call stays whole and its longest result is cut."""
    place = 0
    if len(unit) > 1:
        place = max(range(1, len(unit)), key=lambda one: len(unit[one].text))
    elif isinstance(unit[0], ToolMessage):
        return None

    def with_cut(message: BaseMessage) -> Unit:
        return [*unit[:place], message, *unit[place + 1 :]]

    cut = _cut(unit[place], lambda message: fits(with_cut(message)), splitter, from_end=from_end)
    return with_cut(cut) if cut is not None else None


def _cut(
    message: BaseMessage, fits: Callable[[BaseMessage], bool], splitter: Splitter | None, *, from_end: bool
) -> BaseMessage | None:
    content = message.content
    if isinstance(content, list):
        if not content or not all(_may_be_cut(message, block) for block in content):
            return None
        kept = longest(len(content) - 1, lambda n: fits(_with(message, _side(content, n, from_end))))
        if kept:
            return _with(message, _side(content, kept, from_end))
    return _cut_text(message, _nearest_text(content, from_end), fits, splitter, from_end=from_end)


def _may_be_cut(message: BaseMessage, block: Any) -> bool:
    """What the model was given, and text; never what a provider checks, such as signed thinking."""
    if not isinstance(message, AIMessage) or isinstance(block, str):
        return True
    return block.get("type") in (*MEDIA_TYPES, "text")


def _with(message: BaseMessage, content: Any) -> BaseMessage:
    return message.model_copy(update={"content": content})


def _side(items: Sequence[Any], count: int, from_end: bool) -> list[Any]:
    return list(items[len(items) - count :] if from_end else items[:count])


def _nearest_text(content: str | list[Any], from_end: bool) -> str:
    block = content if isinstance(content, str) else content[-1 if from_end else 0]
    if isinstance(block, str):
        return block
    return str(block.get("text") or "") if block.get("type") == "text" else ""


def _cut_text(
    message: BaseMessage,
    text: str,
    fits: Callable[[BaseMessage], bool],
    splitter: Splitter | None,
    *,
    from_end: bool,
) -> BaseMessage | None:
    """The text by the pieces of the splitter; without one by lines, or by graphemes where no line fits."""
    for split in (splitter,) if splitter else (_lines, list):
        cut = _longest_text(message, _unbroken(split(text)), fits, from_end)
        if cut is not None:
            return cut if cut.text.strip() else None
    return None


def _longest_text(
    message: BaseMessage, pieces: Sequence[str], fits: Callable[[BaseMessage], bool], from_end: bool
) -> BaseMessage | None:
    def cut(count: int) -> BaseMessage:
        return _with(message, "".join(_side(pieces, count, from_end)))

    kept = longest(len(pieces), lambda count: fits(cut(count)))
    return cut(kept) if kept else None


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True) if "\n" in text else [text]


def _unbroken(pieces: Sequence[str]) -> list[str]:
    """The pieces, joined where a cut between them would go through a grapheme."""
    text = "".join(pieces)
    inside = cluster_interiors(text)
    ends = [0, *(end for end in accumulate(map(len, pieces)) if end not in inside)]
    return [text[start:end] for start, end in pairwise(ends) if end > start]
