"""ContextBudgetMiddleware: every model call of a LangChain agent inside its budget."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from ctxkit.errors import MissingExtra

if find_spec("langchain") is None:
    raise MissingExtra("langchain", "langchain")

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ContextT,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ResponseT,
)
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage

from ctxkit.context import Budget, Compressor, Plan
from ctxkit.context.expand import EXPAND, EXPAND_NAME
from ctxkit.protocols import Tool
from ctxkit.tokens import EstimatingCounter
from ctxkit_connectors.langchain.counter import LangChainCounter, TokenCounter, is_counter
from ctxkit_connectors.langchain.expanding import expand_tool
from ctxkit_connectors.langchain.fitting import openai_tools, planned
from ctxkit_connectors.langchain.messages import OpenAIForm
from ctxkit_connectors.shared import window_of

_NO_SYSTEM = AIMessage("")
"""Stands at place 0 where there is no system prompt, and is never sent: places are the same in every request."""

_NO_SYSTEM_REPAIR = "message 0:"


class ContextBudgetMiddleware(AgentMiddleware[AgentState[Any], ContextT, ResponseT]):
    """Fits system prompt, messages and tools into the budget before every model call, by `ctxkit.fit_messages`.

    The system prompt and the last message of the user are sent as they are, the last tool round is always in; older
    messages are reduced or left out, tool rounds as a whole. The stored state is never changed, only the request. A
    request that cannot fit raises BudgetInfeasible, so that no call is made.

    budget: window, reserve, floors and caps; or pass `window_tokens` and `reserve_tokens`.
    counter: a Counter of ctxkit or what LangChain takes as `token_counter`. None: an upper bound that needs no
        tokenizer (`EstimatingCounter`).
    compressors: make the reduced levels; None: `ctxkit.compression.standard()`, () leaves messages out whole.
    expandable: give the agent a tool `expand`, offered whenever a request shows less than the state holds.
    on_plan: called with the plan of each request.

        agent = create_agent(model, tools, middleware=[ContextBudgetMiddleware(window_tokens=32_000)])
    """

    def __init__(
        self,
        *,
        budget: Budget | None = None,
        window_tokens: int | None = None,
        reserve_tokens: int = 0,
        counter: TokenCounter | None = None,
        compressors: Sequence[Compressor] | None = None,
        expandable: bool = False,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> None:
        super().__init__()
        self.budget = window_of(budget, window_tokens, reserve_tokens)
        given = EstimatingCounter() if counter is None else counter
        self.counter = given if is_counter(given) else LangChainCounter(given)
        self.compressors = compressors
        self.expandable = expandable
        self.on_plan = on_plan
        self.tools = [expand_tool] if expandable else []

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[ResponseT]],
    ) -> ModelResponse[ResponseT] | AIMessage | ExtendedModelResponse[ResponseT]:
        return handler(self.fitted(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[ResponseT]]],
    ) -> ModelResponse[ResponseT] | AIMessage | ExtendedModelResponse[ResponseT]:
        return await handler(await asyncio.to_thread(self.fitted, request))  # counting a long history takes a while

    def fitted(self, request: ModelRequest[ContextT]) -> ModelRequest[ContextT]:
        """The request as it is sent. Raises BudgetInfeasible where what must be in does not fit."""
        if not request.messages:
            return request
        own = [tool for tool in request.tools if not (self.expandable and _tool_name(tool) == EXPAND_NAME)]
        form = OpenAIForm([request.system_message or _NO_SYSTEM, *request.messages])
        counted = (*openai_tools(own), *_output_tools(request.response_format))
        plan = planned(
            form, self.budget, self.counter, counted, compressors=self.compressors, expandable=self.expandable
        )
        if request.system_message is None:
            plan = replace(plan, repairs=tuple(line for line in plan.repairs if not line.startswith(_NO_SYSTEM_REPAIR)))
        if self.on_plan is not None:
            self.on_plan(plan)
        sent: list[Any] = [form.back(message) for message in plan.messages if message.owner != "m0"]
        offered = [dict(tool) for tool in plan.tools if tool is EXPAND]
        return request.override(messages=sent, tools=[*own, *offered])


def _tool_name(tool: Any) -> str:
    return str(tool.get("name") if isinstance(tool, dict) else tool.name)


def _output_tools(response_format: Any) -> tuple[Tool, ...]:
    """The schemas of structured output, as tools: what they cost at most, whichever way they are sent."""
    if response_format is None:
        return ()
    wrapped = isinstance(response_format, AutoStrategy | ProviderStrategy | ToolStrategy)
    specs = ToolStrategy(response_format.schema if wrapped else response_format).schema_specs
    return tuple(
        {
            "type": "function",
            "function": {"name": spec.name, "description": spec.description, "parameters": spec.json_schema},
        }
        for spec in specs
    )
