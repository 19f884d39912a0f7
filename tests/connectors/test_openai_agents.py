"""OpenAI's Agents SDK with its own scripted model: calls inside their budget, rounds whole, sessions that last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents.testing")

from agents import Agent, RunConfig, Runner, function_tool, handoff
from agents.memory import Session, SessionSettings
from agents.run import CallModelData, ModelInputData
from agents.testing import ScriptedModel, assistant_message, function_call

from ctxkit.errors import BudgetError, BudgetInfeasible
from ctxkit.session import SqliteOriginals
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter, OpenAITiles
from ctxkit_connectors.openai_agents import ContextBudgetFilter, StoredSession

COUNTER = WhitespaceCounter()
LOG = "\n".join(f"12:00:{i:02} INFO request {i} took {3 + i % 5} ms" for i in range(60)) + "\n12:01 ERROR disk full"
USER = {"role": "user", "content": "Since when?"}
ROUND = [
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "call_id": "c1", "name": "read", "arguments": '{"path": "a"}'},
    {"type": "function_call", "call_id": "c2", "name": "read", "arguments": '{"path": "b"}'},
    {"type": "function_call_output", "call_id": "c1", "output": LOG},
    {"type": "function_call_output", "call_id": "c2", "output": "empty"},
]
HISTORY = [{"role": "user", "content": "Read the log."}, *ROUND, {"role": "assistant", "content": "Full."}, USER]


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


def config(**limits: Any) -> RunConfig:
    return RunConfig(call_model_input_filter=ContextBudgetFilter(counter=COUNTER, **limits), tracing_disabled=True)


def filtered(items: list[Any], instructions: str | None = None, agent: Any = None, **limits: Any) -> ModelInputData:
    data = CallModelData(ModelInputData(list(items), instructions), agent or Agent("a"), None)
    return asyncio.run(ContextBudgetFilter(counter=COUNTER, **limits)(data))


def of_kind(items: list[Any], kind: str) -> set[str]:
    return {item["call_id"] for item in items if item.get("type") == kind}


def test_what_fits_is_sent_as_the_same_objects() -> None:
    sent = filtered(HISTORY, "You find faults.", window_tokens=10_000)
    assert sent.instructions == "You find faults." and len(sent.input) == len(HISTORY)
    assert all(one is given for one, given in zip(sent.input, HISTORY, strict=True))


@pytest.mark.parametrize("window", [20, 40, 60, 90, 130, 200, 400])
def test_rounds_are_whole_and_reasoning_stays_with_its_call(window: int) -> None:
    plans: list[Any] = []
    sent = filtered(HISTORY, window_tokens=window, on_plan=plans.append).input
    kinds = [item.get("type") for item in sent]
    assert of_kind(sent, "function_call") == of_kind(sent, "function_call_output")
    assert ("reasoning" in kinds) == ("function_call" in kinds)
    assert sent[-1] is USER and plans[0].prompt_tokens <= window


def test_a_long_output_is_reduced_and_keeps_what_is_not_text() -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": LOG}
    call = {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"}
    [_, _, sent] = filtered([USER, call, output], window_tokens=120).input
    assert "ERROR disk full" in sent["output"] and len(sent["output"]) < len(LOG) and sent["call_id"] == "c1"
    assert output["output"] == LOG, "the run's own history stays as it is"


def test_images_stay_beside_a_text_that_is_reduced() -> None:
    image = {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"}
    seen = {"role": "user", "content": [{"type": "input_text", "text": LOG}, image]}
    counter = EstimatingCounter(media=OpenAITiles())
    budget_filter = ContextBudgetFilter(counter=counter, window_tokens=700)
    items = [seen, {"role": "assistant", "content": "I see."}, USER]
    sent = asyncio.run(budget_filter(CallModelData(ModelInputData(items, None), Agent("a"), None))).input
    [text, shown] = sent[0]["content"]
    assert shown is image and text["type"] == "input_text" and len(text["text"]) < len(LOG)


def test_calls_of_other_kinds_are_rounds_too_and_never_edited() -> None:
    shell = {"type": "shell_call", "call_id": "s1", "action": {"commands": ["cat log"]}}
    printed = {"type": "shell_call_output", "call_id": "s1", "output": [{"stdout": LOG}]}
    found = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    items = [{"role": "user", "content": "Look."}, found, shell, printed, {"role": "assistant", "content": "So."}, USER]
    for window in (10, 30, 2_000):
        sent = filtered(items, window_tokens=window).input
        assert all(any(one is given for given in items) for one in sent if one.get("type"))
        assert (shell in sent) == (printed in sent)
    assert sent == items


def test_a_run_stays_in_its_window_and_its_result_keeps_everything() -> None:
    @function_tool
    def read(path: str) -> str:
        """Read a file."""
        return LOG

    model = ScriptedModel(
        [[function_call("read", {"path": "app.log"}, call_id="c1")], [assistant_message("Since 12:01.")]]
    )
    agent = Agent("clerk", instructions="You find faults.", tools=[read], model=model)
    result = asyncio.run(Runner.run(agent, "Since when?", run_config=config(window_tokens=170, reserve_tokens=20)))
    assert result.final_output == "Since 12:01."
    last = model.calls[-1].input
    assert last[-1]["type"] == "function_call_output" and "disk full" in last[-1]["output"]
    assert len(last[-1]["output"]) < len(LOG) and LOG in str(result.to_input_list()[-2]["output"])


def test_tools_handoffs_and_output_schema_are_counted() -> None:
    @function_tool
    def read(path: str) -> str:
        """Read a file that has a long description so that it costs something."""
        return path

    plans: list[Any] = []
    for agent in (
        Agent("a"),
        Agent("a", tools=[read]),
        Agent("a", tools=[read], handoffs=[Agent("b"), handoff(Agent("c"))]),
        Agent("a", tools=[read], handoffs=[Agent("b"), handoff(Agent("c"))], output_type=dict[str, int]),
    ):
        if agent.output_type is not None:
            from agents import AgentOutputSchema

            agent.output_type = AgentOutputSchema(dict[str, int], strict_json_schema=False)
        filtered([USER], agent=agent, window_tokens=4_000, on_plan=plans.append)
    tokens = [plan.tools_tokens for plan in plans]
    assert tokens == sorted(set(tokens)) and tokens[0] == 0


def test_a_call_that_cannot_fit_is_not_made() -> None:
    model = ScriptedModel([[assistant_message("never said")]])
    with pytest.raises(BudgetInfeasible):
        asyncio.run(Runner.run(Agent("a", model=model), LOG, run_config=config(window_tokens=20)))
    assert model.calls == ()
    with pytest.raises(BudgetError):
        ContextBudgetFilter()


def test_no_items_are_no_error() -> None:
    assert filtered([], window_tokens=10).input == []


def test_a_broken_round_is_repaired_for_the_provider() -> None:
    sent = filtered([*HISTORY[:3], USER], window_tokens=1_000).input
    assert of_kind(sent, "function_call") == of_kind(sent, "function_call_output")


def test_a_session_outlives_its_process(tmp_path: Path) -> None:
    model = ScriptedModel([[assistant_message("Hello.")], [assistant_message("You said hi.")]])
    agent = Agent("a", model=model)
    for asked in ("hi", "What did I say?"):
        with SqliteOriginals(tmp_path / "sessions.db") as store:
            session = StoredSession("s1", store)
            asyncio.run(Runner.run(agent, asked, session=session, run_config=RunConfig(tracing_disabled=True)))
    assert [item.get("content") for item in model.calls[-1].input][::2] == ["hi", "What did I say?"]


def test_a_session_does_what_the_protocol_says() -> None:
    async def used() -> None:
        session, other = StoredSession("s1"), StoredSession("s2")
        assert isinstance(session, Session) and await session.pop_item() is None and await session.get_items() == []
        items = [{"role": "user", "content": str(n)} for n in range(5)]
        await session.add_items(items[:3])
        await session.add_items([])
        await session.add_items(items[3:])
        assert await session.get_items() == items and await session.get_items(2) == items[3:]
        assert await session.get_items(0) == [] and await session.get_items(99) == items
        session.session_settings = SessionSettings(limit=1)
        assert await session.get_items() == items[4:]
        assert await session.pop_item() == items[4] and await session.get_items(1) == [items[3]]
        await session.clear_session()
        assert await session.get_items(9) == [] and await other.get_items() == []
        await session.add_items(items[:1])
        assert await session.get_items(9) == items[:1]

    asyncio.run(used())


def test_cleared_items_are_overwritten_and_sessions_of_one_store_are_apart(tmp_path: Path) -> None:
    async def used(store: SqliteOriginals) -> None:
        first, second = StoredSession("a", store), StoredSession("ab", store)
        await first.add_items([{"role": "user", "content": "secret"}])
        await second.add_items([USER])
        await first.clear_session()
        assert await second.get_items() == [USER]
        assert all("secret" not in (store.get(key) or "") for key in store.keys(""))

    with SqliteOriginals(tmp_path / "sessions.db") as store:
        asyncio.run(used(store))


@pytest.mark.parametrize("wrong", ["", "a/b"])
def test_an_id_that_could_reach_another_session_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="session_id"):
        StoredSession(wrong)
