"""`fit_messages`: LangChain messages and a budget in, the messages to send out; reduced before they are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, MessageLikeRepresentation, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.utils.function_calling import convert_to_openai_tool

from ctxkit.context import Budget, Compressor, Plan
from ctxkit.protocols import Tool
from ctxkit.session import fit_messages as fit_dicts
from ctxkit_connectors.langchain.counter import TokenCounter, as_counter
from ctxkit_connectors.langchain.messages import OpenAIForm
from ctxkit_connectors.shared import budget_of


def fit_messages(
    messages: Iterable[MessageLikeRepresentation] | PromptValue,
    *,
    max_tokens: int | None = None,
    budget: Budget | None = None,
    token_counter: TokenCounter,
    tools: Sequence[Any] = (),
    compressors: Sequence[Compressor] | None = None,
    keep_last_round: bool = True,
) -> list[BaseMessage]:
    """The messages that fit, with old and long ones reduced where `trim_messages` could only leave them out.

    max_tokens: of the whole prompt, tools included; or pass a `budget` with window and reserve.
    token_counter: what LangChain takes, or a Counter of ctxkit.
    tools: what `bind_tools` takes; their schemas are counted.
    compressors, keep_last_round: as in `ctxkit.fit_messages`, which also says what is pinned and what is repaired.

    What is sent whole is the same object; what is reduced keeps its id, name and metadata.

    Raises BudgetInfeasible where what must be in does not fit, PartError for what is no conversation.
    """
    budget = budget_of(max_tokens, budget)
    given = convert_to_messages(messages)
    if not given:
        return []
    form = OpenAIForm(given)
    plan = planned(
        form, budget, token_counter, openai_tools(tools), compressors=compressors, keep_last_round=keep_last_round
    )
    return form.all_back(plan.messages)


def planned(
    form: OpenAIForm,
    budget: Budget,
    token_counter: TokenCounter,
    tools: Sequence[Tool],
    *,
    compressors: Sequence[Compressor] | None = None,
    expandable: bool = False,
    keep_last_round: bool = True,
) -> Plan:
    """The plan for the messages of `form`."""
    return fit_dicts(
        form.dicts,
        budget=budget,
        counter=as_counter(token_counter, form),
        tools=tools,
        compressors=compressors,
        expandable=expandable,
        keep_last_round=keep_last_round,
    )


def openai_tools(tools: Iterable[Any]) -> tuple[Tool, ...]:
    """Tools as they are counted: OpenAI's form; what a provider runs itself as it is."""
    return tuple(_openai_tool(tool) for tool in tools)


def _openai_tool(tool: Any) -> Tool:
    hosted = isinstance(tool, Mapping) and not tool.keys() & {"function", "name", "title", "toolSpec"}
    return tool if hosted else convert_to_openai_tool(tool)
