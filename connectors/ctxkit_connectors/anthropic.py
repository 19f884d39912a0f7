"""Anthropic's messages: `trim_messages`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ctxkit.context import Budget, Compressor
from ctxkit.context.chat import anthropic_problems, from_anthropic, to_anthropic
from ctxkit.context.chat.blocks import from_tool_use, to_tool_use
from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage, Counter, PromptMessage, Tool
from ctxkit_connectors import openai
from ctxkit_connectors.shared import CountedAsSent, tool_schema

System = str | Sequence[Mapping[str, Any]]


def trim_messages(
    messages: Iterable[ChatMessage],
    *,
    system: System | None = None,
    max_tokens: int | None = None,
    budget: Budget | None = None,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] | None = None,
    keep_last_round: bool = True,
) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
    """(system, messages) to send, so that the prompt fits: `ctxkit.fit_messages` for Anthropic's form.

    max_tokens: of the whole prompt, system and tools included; or pass a `budget` with window and reserve.
    tools: in Anthropic's form (name, description, input_schema) or OpenAI's; they are counted.

    What is returned is valid by `anthropic_problems`; where that cannot be had (a conversation that no message of the
    user begins), PartError says why. The other arguments, and what is raised, are those of `ctxkit.fit_messages`.
    """
    given = from_anthropic(messages, system)
    trimmed = openai.trim_messages(
        given,
        max_tokens=max_tokens,
        budget=budget,
        counter=CountedAsSent(counter, _as_sent),
        tools=[_openai_tool(tool) for tool in tools],
        compressors=compressors,
        keep_last_round=keep_last_round,
    )
    sent_system, sent = to_anthropic(trimmed)
    problems = anthropic_problems(sent) if given else ()
    if problems:
        raise PartError(f"no valid prompt for Anthropic's API can be made of these messages: {'; '.join(problems)}")
    return sent_system, sent


def _as_sent(message: PromptMessage) -> PromptMessage:
    if message.original is not None or not message.tool_calls:
        return message
    calls = (from_tool_use(to_tool_use(call, str(call.get("id")))) for call in message.tool_calls)
    return replace(message, tool_calls=tuple(calls))


def _openai_tool(tool: Tool) -> Tool:
    """For counting; what the provider runs itself (no schema) is counted as it is."""
    if "input_schema" not in tool:
        return tool
    return tool_schema(tool["name"], tool.get("description"), tool["input_schema"])
