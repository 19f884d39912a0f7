"""ContextBudget: a capability of Pydantic AI's agents; `fit_history`: the same as a function."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models import ModelRequestContext, ModelRequestParameters

from ctxkit.context import Budget, Compressor, Plan
from ctxkit.protocols import Counter, Tool
from ctxkit.session import fit_messages
from ctxkit.tokens import EstimatingCounter
from ctxkit_connectors.pydantic_ai.history import HistoryForm
from ctxkit_connectors.shared import tool_schema, window_of


class ContextBudget(AbstractCapability[Any]):
    """Fits instructions, history and tools into the budget before every model request, by `ctxkit.fit_messages`.

    System prompts and the last prompt of the user are sent as they are, the last tool round is always in; older
    messages are reduced or left out, a call and its return together. The history of the run is never changed, only the
    request. A request that cannot fit raises BudgetInfeasible, so that it is not made.

    budget: window, reserve, floors and caps; or pass `window_tokens` and `reserve_tokens`.
    counter: the model's; None: an upper bound that needs no tokenizer (`EstimatingCounter`).
    compressors: make the reduced levels; None: `ctxkit.compression.standard()`, () leaves messages out whole.
    on_plan: called with the plan of each request.

        agent = Agent(model, capabilities=[ContextBudget(window_tokens=32_000)])
    """

    def __init__(
        self,
        *,
        budget: Budget | None = None,
        window_tokens: int | None = None,
        reserve_tokens: int = 0,
        counter: Counter | None = None,
        compressors: Sequence[Compressor] | None = None,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> None:
        self.budget = window_of(budget, window_tokens, reserve_tokens)
        self.counter = counter
        self.compressors = compressors
        self.on_plan = on_plan

    @classmethod
    def get_serialization_name(cls) -> str | None:
        return None  # takes callables

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        fitted = await asyncio.to_thread(  # counting a long history takes a while
            fit_history,
            request_context.messages,
            budget=self.budget,
            counter=self.counter,
            compressors=self.compressors,
            parameters=request_context.model_request_parameters,
            on_plan=self.on_plan,
        )
        return replace(request_context, messages=fitted)


def fit_history(
    messages: Sequence[ModelMessage],
    *,
    budget: Budget | None = None,
    window_tokens: int | None = None,
    reserve_tokens: int = 0,
    counter: Counter | None = None,
    compressors: Sequence[Compressor] | None = None,
    parameters: ModelRequestParameters | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> list[ModelMessage]:
    """The messages that fit. The arguments are those of ContextBudget.

    parameters: the instructions and tools of the request; without them the instructions in the last request are
        counted, and tools are not: leave them a reserve.

    `ProcessHistory(lambda messages: fit_history(messages, ...))` works too, but it takes what does not fit out of the
    run's history for good; ContextBudget does not.

    Raises BudgetInfeasible where what must be in does not fit.
    """
    limits = window_of(budget, window_tokens, reserve_tokens)
    form = HistoryForm(messages, _instructions(messages, parameters))
    if not any(message["role"] != "system" for message in form.dicts):
        return list(messages)
    plan = fit_messages(
        form.dicts,
        budget=limits,
        counter=EstimatingCounter() if counter is None else counter,
        tools=[] if parameters is None else _tools(parameters),
        compressors=compressors,
    )
    if on_plan is not None:
        on_plan(plan)
    fitted = form.history(plan.messages)
    last = messages[-1]
    if isinstance(last, ModelRequest) and not last.parts:  # says nothing, but carries the instructions
        fitted.append(last)
    return fitted


def _instructions(messages: Sequence[ModelMessage], parameters: ModelRequestParameters | None) -> str:
    if parameters is not None and parameters.instruction_parts is not None:
        return "\n\n".join(part.content for part in parameters.instruction_parts)
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    return (requests[-1].instructions or "") if requests else ""


def _tools(parameters: ModelRequestParameters) -> list[Tool]:
    """Everything that is sent as a schema: tools, and the form of the output."""
    schemas = [
        (tool.name, tool.description, tool.parameters_json_schema)
        for tool in (*parameters.function_tools, *parameters.output_tools)
    ]
    if (output := parameters.output_object) is not None:
        schemas.append((output.name or "output", output.description, output.json_schema))
    return [tool_schema(*schema) for schema in schemas]
