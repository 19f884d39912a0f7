"""What of a list of LangChain messages lives or dies together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from ctxkit_connectors.langchain.messages import to_openai

Unit = list[BaseMessage]
"""A message on its own, or a call with its results."""


def units_of(messages: Sequence[BaseMessage]) -> list[Unit]:
    """The units in order, without what every provider refuses.

    Left out: a tool result that does not stand behind a call that it answers, a second result of one call, and calls
    that are not all answered directly behind them.
    """
    units: list[Unit] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if isinstance(message, ToolMessage):
            continue
        results = list(takewhile(lambda one: isinstance(one, ToolMessage), messages[at:])) if _may_call(message) else []
        unit = _unit(message, results)
        if unit:
            units.append(unit)
        at += len(results)
    return units


def _may_call(message: BaseMessage) -> bool:
    """Calls are in `tool_calls`, in `invalid_tool_calls` or in blocks of the content."""
    if not isinstance(message, AIMessage):
        return False
    return bool(message.tool_calls or message.invalid_tool_calls or not isinstance(message.content, str))


def _unit(message: BaseMessage, results: Sequence[BaseMessage]) -> Unit:
    if not _may_call(message):
        return [message]
    ids = [call["id"] for call in to_openai(message).get("tool_calls", ())]
    if not ids:
        return [message]
    first: dict[str, BaseMessage] = {}
    for result in results:
        if isinstance(result, ToolMessage) and result.tool_call_id in ids:
            first.setdefault(result.tool_call_id, result)
    whole = all(ids) and len(set(ids)) == len(ids) == len(first)
    return [message, *first.values()] if whole else []
