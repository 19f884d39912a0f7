"""A component that fits a chat prompt into a window, before a chat generator."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
from typing import Any

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import ChatMessage
from haystack.tools import Toolset, flatten_tools_or_toolsets
from haystack.tools.tool import Tool

from ctxkit.context import Budget
from ctxkit.protocols import Counter
from ctxkit.session import fit_messages
from ctxkit_connectors.haystack.counting import counter_of, saved
from ctxkit_connectors.haystack.messages import MessagesForm


@component
class CtxkitPromptFitter:
    """Fits messages and tools into a window by `ctxkit.fit_messages`; put it between a prompt builder and a generator.

    System messages and the last message of the user are sent as they are, the last tool round is always in; older
    messages are reduced or left out, a call and its result together. Raises BudgetInfeasible where that does not fit.

    window_tokens: of prompt and answer together. reserve_tokens: of these, for the answer.
    model: what the tokens are counted for, a name of `ctxkit models list` or a folder; None: an upper bound for all
        common models. counter: an object instead, which cannot be saved with the pipeline.
    """

    def __init__(
        self,
        window_tokens: int,
        reserve_tokens: int = 0,
        model: str | None = None,
        counter: Counter | None = None,
    ) -> None:
        self.window_tokens = window_tokens
        self.reserve_tokens = reserve_tokens
        self.model = model
        self.counter = counter
        self._budget = Budget(window_tokens, reserve_tokens)
        self._counter = counter

    def warm_up(self) -> None:
        self._ready()

    def _ready(self) -> Counter:
        if self._counter is None:
            self._counter = counter_of(self.model)
        return self._counter

    @component.output_types(messages=list[ChatMessage], report=str)
    def run(self, messages: list[ChatMessage], tools: list[Tool | Toolset] | Toolset | None = None) -> dict[str, Any]:
        """tools: those that the generator is given; their schemas are counted."""
        if not messages:
            return {"messages": [], "report": ""}
        form = MessagesForm(messages)
        schemas = [{"type": "function", "function": tool.tool_spec} for tool in flatten_tools_or_toolsets(tools)]
        plan = fit_messages(form.dicts, budget=self._budget, counter=self._ready(), tools=schemas)
        return {"messages": form.all_back(plan.messages), "report": str(plan)}

    @component.output_types(messages=list[ChatMessage], report=str)
    async def run_async(
        self, messages: list[ChatMessage], tools: list[Tool | Toolset] | Toolset | None = None
    ) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, messages, tools)

    def to_dict(self) -> dict[str, Any]:
        saved(self.counter)
        return default_to_dict(
            self, window_tokens=self.window_tokens, reserve_tokens=self.reserve_tokens, model=self.model
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CtxkitPromptFitter:
        return default_from_dict(cls, data)
