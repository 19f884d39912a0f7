"""openai-agents' own OpenAI models against the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("agents", reason="openai-agents is not installed")
pytest.importorskip("agents.models.openai_responses", reason="openai-agents is not installed")

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from ctxkit.server import Service
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionStore
from tests.obliging import Obliging
from tests.server.running import RunningServer

SAID = "Hello to you, and here is some more to stream."
CONFIG = RunConfig(tracing_disabled=True)
MODELS = [OpenAIResponsesModel, OpenAIChatCompletionsModel]

Ask = Callable[[Any], Awaitable[Any]]


class Weather(BaseModel):
    place: str
    degrees: float


@function_tool
def weather(place: str) -> str:
    """The weather at a place."""
    return f"sunny in {place}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    database = open_database(str(tmp_path_factory.mktemp("agents") / "sessions.db"))
    running = RunningServer(Service({"obliging": Obliging()}, store=SessionStore(database)))
    yield running
    running.close()
    database.close()


def asked(server: RunningServer, model: type[Any], act: Ask, **agent: Any) -> Any:
    """What `act` makes of an agent over such a model."""

    async def whole() -> Any:
        async with AsyncOpenAI(base_url=f"{server.root}/v1", api_key="none", max_retries=0) as client:
            return await act(Agent("clerk", instructions="Be brief.", model=model("obliging", client), **agent))

    return asyncio.run(whole())


def prompts(server: RunningServer) -> list[list[str]]:
    """The roles of each prompt that the model has seen."""
    model = server.service.models["obliging"]
    assert isinstance(model, Obliging)
    return [[message.role for message in request.messages] for request in model.prompts]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_with_a_tool_comes_to_its_end(server: RunningServer, model: type[Any]) -> None:
    async def run(agent: Any) -> Any:
        return await Runner.run(agent, "How is it in 'Rome'?", run_config=CONFIG)

    result = asked(server, model, run, tools=[weather])
    assert result.final_output == SAID
    assert [item.type for item in result.new_items] == [
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert result.new_items[1].output == "sunny in Rome"
    assert prompts(server)[-1] == ["system", "user", "assistant", "tool"]
    usage = result.context_wrapper.usage
    assert usage.requests == 2 and usage.input_tokens > usage.output_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_a_run_with_a_tool_streams(server: RunningServer, model: type[Any]) -> None:
    async def run(agent: Any) -> tuple[Any, list[str]]:
        result = Runner.run_streamed(agent, "How is it in 'Rome'?", run_config=CONFIG)
        events = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
        return result, [event.delta for event in events if event.type == "response.output_text.delta"]

    result, pieces = asked(server, model, run, tools=[weather])
    assert result.final_output == SAID == "".join(pieces) and len(pieces) > 3
    assert result.new_items[1].output == "sunny in Rome"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_output_type_is_filled(server: RunningServer, model: type[Any], streamed: bool) -> None:
    async def run(agent: Any) -> Any:
        if not streamed:
            return await Runner.run(agent, "Weather?", run_config=CONFIG)
        result = Runner.run_streamed(agent, "Weather?", run_config=CONFIG)
        assert [event async for event in result.stream_events()]
        return result

    result = asked(server, model, run, output_type=Weather)
    assert result.final_output == Weather(place="a text", degrees=3.0)


@pytest.mark.parametrize("model", MODELS)
def test_a_tool_that_must_be_called_is_called(server: RunningServer, model: type[Any]) -> None:
    async def run(agent: Any) -> Any:
        return await Runner.run(agent, "Rome?", run_config=CONFIG)

    settings = ModelSettings(tool_choice="weather", parallel_tool_calls=False, temperature=0.0, max_tokens=100)
    result = asked(server, model, run, tools=[weather], model_settings=settings)
    assert [item.type for item in result.new_items].count("tool_call_item") == 1


@pytest.mark.parametrize("model", MODELS)
def test_another_agent_takes_over(server: RunningServer, model: type[Any]) -> None:
    async def run(agent: Any) -> Any:
        other = Agent("other", handoff_description="Knows.", model=agent.model)
        return await Runner.run(agent.clone(handoffs=[other]), "Who knows?", run_config=CONFIG)

    result = asked(server, model, run)
    assert result.last_agent.name == "other" and result.final_output == SAID


@pytest.mark.parametrize("model", MODELS)
def test_a_session_of_the_client_goes_on(server: RunningServer, model: type[Any]) -> None:
    async def run(agent: Any) -> Any:
        session = SQLiteSession("s1")
        for text in ("How is it in 'Rome'?", "And now?"):
            result = await Runner.run(agent, text, session=session, run_config=CONFIG)
        session.close()
        return result

    assert asked(server, model, run, tools=[weather]).final_output == SAID
    turn = ["user", "assistant", "tool"]
    assert prompts(server)[-1] == ["system", *turn, "assistant", *turn]


@pytest.mark.parametrize("streamed", [False, True])
def test_only_what_is_new_is_sent_where_the_server_keeps_the_rest(server: RunningServer, streamed: bool) -> None:
    async def run(agent: Any) -> Any:
        if not streamed:
            return await Runner.run(agent, "In 'Rome'?", auto_previous_response_id=True, run_config=CONFIG)
        result = Runner.run_streamed(agent, "In 'Rome'?", auto_previous_response_id=True, run_config=CONFIG)
        assert [event async for event in result.stream_events()]
        return result

    result = asked(server, OpenAIResponsesModel, run, tools=[weather])
    assert result.final_output == SAID and prompts(server)[-1] == ["system", "user", "assistant", "tool"]
    client = server.client()
    last = client.responses.retrieve(result.last_response_id)
    assert last.previous_response_id == result.raw_responses[0].response_id
    items = client.responses.input_items.list(last.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
