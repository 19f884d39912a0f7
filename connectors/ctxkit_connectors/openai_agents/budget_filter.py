"""ContextBudgetFilter: every model call of an agent's run inside its budget."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from agents import Agent, AgentOutputSchema, AgentOutputSchemaBase, FunctionTool, Handoff, RunContextWrapper, handoff
from agents.run import CallModelData, ModelInputData

from ctxkit.context import Budget, Compressor, Plan
from ctxkit.protocols import Counter, Tool
from ctxkit.session import fit_messages
from ctxkit.tokens import EstimatingCounter
from ctxkit_connectors.openai_agents.items import ItemsForm
from ctxkit_connectors.shared import tool_schema, window_of


class ContextBudgetFilter:
    """A `call_model_input_filter`: fits instructions, items and tools into the budget before every model call.

    The instructions and the last message of the user are sent as they are, the last tool round is always in; older
    items are reduced or left out, a call and its output together. The run's own history and its session keep
    everything. A call that cannot fit raises BudgetInfeasible, so that it is not made.

    budget: window, reserve, floors and caps; or pass `window_tokens` and `reserve_tokens`.
    counter: the model's; None: an upper bound that needs no tokenizer (`EstimatingCounter`).
    compressors: make the reduced levels; None: `ctxkit.compression.standard()`, () leaves items out whole.
    on_plan: called with the plan of each call.

    For histories that the client sends. Where the server keeps the conversation (`conversation_id`,
    `previous_response_id`), what it holds already is not seen here.

        config = RunConfig(call_model_input_filter=ContextBudgetFilter(window_tokens=32_000))
        result = await Runner.run(agent, "Why does the build fail?", run_config=config)
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
        self.counter: Counter = EstimatingCounter() if counter is None else counter
        self.compressors = compressors
        self.on_plan = on_plan

    async def __call__(self, data: CallModelData[Any]) -> ModelInputData:
        given = data.model_data
        if not given.input:
            return given
        form = ItemsForm(given.input, given.instructions)
        tools = await _tools(data.agent, data.context)
        plan = await asyncio.to_thread(self._planned, form, tools)  # counting a long history takes a while
        if self.on_plan is not None:
            self.on_plan(plan)
        return ModelInputData(input=form.all_back(plan.messages), instructions=given.instructions)

    def _planned(self, form: ItemsForm, tools: Sequence[Tool]) -> Plan:
        return fit_messages(
            form.dicts, budget=self.budget, counter=self.counter, tools=tools, compressors=self.compressors
        )


async def _tools(agent: Agent[Any], context: Any) -> list[Tool]:
    """What is sent along with the items, as tools: the agent's own, its handoffs, the schema of its output.

    A tool that the provider runs itself has no schema here, and costs nothing that anybody but the provider knows.
    """
    own = [
        tool_schema(tool.name, tool.description, tool.params_json_schema)
        for tool in await agent.get_all_tools(RunContextWrapper(context))
        if isinstance(tool, FunctionTool)
    ]
    for one in agent.handoffs:
        to = one if isinstance(one, Handoff) else handoff(one)
        own.append(tool_schema(to.tool_name, to.tool_description, to.input_json_schema))
    output = agent.output_type
    if output is not None and output is not str:
        schema = output if isinstance(output, AgentOutputSchemaBase) else AgentOutputSchema(output)
        if not schema.is_plain_text():
            own.append(tool_schema(schema.name(), "", schema.json_schema()))
    return own
