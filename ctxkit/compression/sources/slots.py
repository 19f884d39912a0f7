"""Slots: the texts of a group that count, each content and each call's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctxkit.context.group import Group
from ctxkit.context.part import Part
from ctxkit.protocols import Counter

SMALL_TOKENS = 8
"""A text of so few tokens is not worth reducing."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One text of a group.

    place: of the part in the group. call: of the call in the part, None for the part's content.
    verbatim: must stay as it is.
    """

    place: int
    call: int | None
    text: str
    tokens: int
    verbatim: bool

    @property
    def is_reducible(self) -> bool:
        """Whether a shorter rendering of it may be looked for."""
        return not self.verbatim and self.tokens > SMALL_TOKENS


def slots_of(group: Group, counter: Counter) -> tuple[Slot, ...]:
    texts = [
        (place, call, text, part.verbatim) for place, part in enumerate(group.parts) for call, text in _texts(part)
    ]
    counts = counter.count_batch([text for _, _, text, _ in texts])
    return tuple(
        Slot(place, call, text, tokens, verbatim)
        for (place, call, text, verbatim), tokens in zip(texts, counts, strict=True)
    )


def _texts(part: Part) -> list[tuple[int | None, str]]:
    arguments = ((index, arguments_of(call)) for index, call in enumerate(part.tool_calls))
    return [(None, part.content), *((index, text) for index, text in arguments if text is not None)]


def arguments_of(call: Mapping[str, Any]) -> str | None:
    """The arguments of a call in OpenAI's form, as it spells them; None where they are no text."""
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    return arguments if isinstance(arguments, str) else None


def rewritten(part: Part, content: str, arguments: Mapping[int, str], **fields: Any) -> Part:
    """The part with another content, and other arguments for the calls at these places."""
    calls = tuple(
        {**call, "function": {**call["function"], "arguments": arguments[index]}} if index in arguments else call
        for index, call in enumerate(part.tool_calls)
    )
    return part.rewritten(content, tool_calls=calls, **fields)
