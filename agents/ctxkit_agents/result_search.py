"""Searching what tools returned: an agent finds a line again without getting back the whole of a long result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ctxkit.context.expand import EXPAND_NAME
from ctxkit.protocols import ChatMessage
from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.tools import FunctionTool

FIND_NAME = "find_in_results"

_MOST_HITS = 20
_AROUND_CHARS = 160  # of a long line, on either side of the hit


def result_search(messages: Callable[[], Sequence[ChatMessage]]) -> FunctionTool:
    """The tool. messages: the conversation so far, in OpenAI's form; part "m3" of a prompt is its message 3."""

    def find(text: str) -> str:
        return found_in(results_of(messages()), text)

    description = "Finds lines in all earlier tool results, also those left out of view. Case does not matter."
    return FunctionTool(find, FIND_NAME, description)


def results_of(messages: Iterable[ChatMessage]) -> dict[str, str]:
    """What tools returned, by ref; without what was only given back."""
    names: dict[Any, str] = {}
    results: dict[str, str] = {}
    for place, message in enumerate(messages):
        names.update({call.get("id"): call["function"]["name"] for call in message.get("tool_calls") or ()})
        if message["role"] == "tool" and names.get(message.get("tool_call_id")) not in (EXPAND_NAME, FIND_NAME):
            results[f"m{place}"] = str(message["content"])
    return results


def found_in(results: dict[str, str], text: str) -> str:
    """The lines that hold the text, each behind the ref that `expand` takes; at most 20, the rest is counted.

    >>> found_in({"m3": "one\\nTwo\\nthree"}, "two")
    'm3:2-2 Two'

    Raises ToolError for a text of white space.
    """
    if not text.strip():
        raise ToolError("`text` is empty; say what the line has in it")
    hits = list(_hits(results, text.casefold()))
    if not hits:
        return f"No line of the {len(results):,} results has {text!r}."
    more = [f"and {len(hits) - _MOST_HITS:,} more lines; say it more precisely"] if len(hits) > _MOST_HITS else []
    return "\n".join([*hits[:_MOST_HITS], *more])


def _hits(results: dict[str, str], text: str) -> Iterator[str]:
    for ref, result in results.items():
        for number, line in enumerate(result.split("\n"), 1):
            at = line.casefold().find(text)
            if at >= 0:
                yield f"{ref}:{number}-{number} {_around(line, at, len(text))}"


def _around(line: str, at: int, length: int) -> str:
    start, end = max(at - _AROUND_CHARS, 0), at + length + _AROUND_CHARS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
