"""ContextBudgetMiddleware in a real agent, with a model that only follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware.types import ModelRequest
from langchain.agents.structured_output import AutoStrategy, ToolStrategy
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field, PrivateAttr

from ctxkit.compression import StubCompressor
from ctxkit.context import Budget, Plan
from ctxkit.context.chat import openai_problems
from ctxkit.errors import BudgetError, BudgetInfeasible
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import messages_from_dicts
from ctxkit_connectors.langchain import ContextBudgetMiddleware, OpenAIForm

TASK = "Read all thirty pages and tell me, word for word, what the last one says."
SYSTEM = "You read pages. Answer briefly."
COUNTER = WhitespaceCounter()

Step = Callable[[Sequence[BaseMessage]], AIMessage]


class Scripted(BaseChatModel):
    """Answers with one step after another, and remembers what it was sent."""

    steps: list[Any]
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _tools: list[list[dict[str, Any]]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools])

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        step = self.steps[len(self._seen)]
        self._seen.append(messages)
        self._tools.append(kwargs.get("tools", []))
        answer = step(messages) if callable(step) else step
        return ChatResult(generations=[ChatGeneration(message=answer)])


@tool
def read_page(number: int) -> str:
    """Reads one page."""
    return "\n".join(f"Page {number}, line {line}: the quick brown fox." for line in range(20))


def calls(name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"id": f"{name}-{args}", "name": name, "args": args, "type": "tool_call"}])


def reader(pages: int) -> Scripted:
    return Scripted(steps=[*(calls("read_page", number=number) for number in range(pages)), AIMessage("a fox")])


def run(agent: Any, *, asynchronous: bool = False) -> list[BaseMessage]:
    given: Any = {"messages": [HumanMessage(TASK)]}
    options: Any = {"recursion_limit": 200}
    done = asyncio.run(agent.ainvoke(given, options)) if asynchronous else agent.invoke(given, options)
    return list(done["messages"])


def tokens(messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]]) -> int:
    return COUNTER.render(messages_from_dicts(OpenAIForm(messages).dicts), tools=tools).tokens


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_every_request_of_a_long_loop_is_inside_the_budget(asynchronous):  # acceptance case 5
    model, plans = reader(30), list[Plan]()
    middleware = ContextBudgetMiddleware(window_tokens=600, reserve_tokens=100, counter=COUNTER, on_plan=plans.append)
    agent = create_agent(model, [read_page], system_prompt=SYSTEM, middleware=[middleware])
    state = run(agent, asynchronous=asynchronous)
    assert len(model._seen) == len(plans) == 31
    for round_number, (seen, tools) in enumerate(zip(model._seen, model._tools, strict=True)):
        assert tokens(seen, tools) <= 500
        assert openai_problems(OpenAIForm(seen).dicts) == ()
        assert seen[0] == SystemMessage(SYSTEM)
        assert TASK in [message.text for message in seen if message.type == "human"]
        if round_number:
            assert f"Page {round_number - 1}, line 0" in seen[-1].text
            assert seen[-1].type == "tool" and seen[-2].type == "ai"
    assert [plan.prompt_tokens for plan in plans] == [
        tokens(seen, tools) for seen, tools in zip(model._seen, model._tools, strict=True)
    ]
    assert len(state) == 62, "the state keeps everything"
    assert all(message.text == read_page.invoke({"number": n}) for n, message in enumerate(state[2:61:2]))


def test_a_small_conversation_is_sent_as_it_is():
    model = Scripted(steps=[calls("read_page", number=1), AIMessage("a fox")])
    middleware = ContextBudgetMiddleware(budget=Budget(5000), counter=COUNTER)
    state = run(create_agent(model, [read_page], middleware=[middleware]))
    assert model._seen[-1] == state[:-1]
    assert [message.id for message in model._seen[-1]] == [message.id for message in state[:-1]]


def test_without_a_counter_the_estimate_is_an_upper_bound():
    model = reader(8)
    run(
        create_agent(model, [read_page], system_prompt=SYSTEM, middleware=[ContextBudgetMiddleware(window_tokens=1500)])
    )
    assert all(len(message.text) < 1500 * 8 for seen in model._seen for message in seen)
    assert all(tokens(seen, tools) <= 1500 for seen, tools in zip(model._seen, model._tools, strict=True))


def test_a_counter_of_langchain_is_taken():
    model = reader(8)

    def words(messages: list[BaseMessage]) -> int:
        return sum(5 + len(message.text.split()) for message in messages)

    run(create_agent(model, [read_page], middleware=[ContextBudgetMiddleware(window_tokens=400, counter=words)]))
    assert all(words(seen) <= 400 for seen in model._seen)
    assert any(isinstance(message, ToolMessage) for message in model._seen[-1])


def test_what_cannot_fit_makes_no_call():
    model = reader(8)
    agent = create_agent(
        model,
        [read_page],
        system_prompt="word " * 500,
        middleware=[ContextBudgetMiddleware(window_tokens=300, counter=COUNTER)],
    )
    with pytest.raises(BudgetInfeasible, match="m0"):
        run(agent)
    assert model._seen == []


@pytest.mark.parametrize("system_prompt", [SYSTEM, None], ids=["system prompt", "none"])
def test_the_model_gets_back_what_a_request_left_out(system_prompt):
    def ask_again(messages: Sequence[BaseMessage]) -> AIMessage:
        shown = next(message.text for message in messages if message.type == "tool" and 'expand("' in message.text)
        return calls("expand", ref=shown.split('expand("')[1].split('"')[0])

    model = Scripted(steps=[*(calls("read_page", number=n) for n in range(3)), ask_again, AIMessage("a fox")])
    middleware = ContextBudgetMiddleware(
        window_tokens=500, counter=COUNTER, compressors=[StubCompressor()], expandable=True
    )
    state = run(create_agent(model, [read_page], system_prompt=system_prompt, middleware=[middleware]))
    names = [[one["function"]["name"] for one in tools] for tools in model._tools]
    assert names[0] == ["read_page"], "offered only where something is missing"
    assert names[3] == ["read_page", "expand"]
    assert tokens(model._seen[3], model._tools[3]) <= 500
    answer = state[-2]
    assert isinstance(answer, ToolMessage) and answer.name == "expand"
    assert any(answer.text in message.text for message in state[:-2] if message.type == "tool")


def test_a_ref_that_was_never_shown_gets_an_explanation():
    model = Scripted(steps=[calls("expand", ref="m77"), AIMessage("oh")])
    agent = create_agent(model, [read_page], middleware=[ContextBudgetMiddleware(window_tokens=2000, expandable=True)])
    assert "nothing behind 'm77'" in run(agent)[-2].text


class Total(BaseModel):
    """The total of an invoice."""

    euros: float = Field(description="word " * 300)


@pytest.mark.parametrize(
    "response_format", [ToolStrategy(Total), AutoStrategy(Total), Total], ids=["tool", "auto", "class"]
)
def test_the_schema_of_the_answer_is_counted(response_format):
    plans: list[Plan] = []
    middleware: Any = ContextBudgetMiddleware(window_tokens=900, counter=COUNTER, on_plan=plans.append)
    request: Any = ModelRequest(
        model=reader(8), messages=[HumanMessage("hi")], tools=[], response_format=response_format
    )
    assert middleware.fitted(request).tools == []
    assert plans[0].tools_tokens > 300


def test_the_budget_is_said_once():
    for options in ({}, {"budget": Budget(9), "window_tokens": 9}, {"budget": Budget(9), "reserve_tokens": 1}):
        with pytest.raises(BudgetError, match="either `budget` or `window_tokens`"):
            ContextBudgetMiddleware(**options)  # type: ignore[arg-type]


def test_a_request_without_messages_is_left_alone():
    middleware: Any = ContextBudgetMiddleware(window_tokens=9)
    request: Any = ModelRequest(model=reader(8), messages=[])
    assert middleware.fitted(request) is request
