"""Pydantic AI with its own function model: requests inside their budget, rounds whole, the run's history untouched."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.capabilities import ProcessHistory
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from ctxkit.errors import BudgetError, BudgetInfeasible
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter, OpenAITiles
from ctxkit_connectors.pydantic_ai import ContextBudget, fit_history

COUNTER = WhitespaceCounter()
LOG = "\n".join(f"12:00:{i:02} INFO request {i} took {3 + i % 5} ms" for i in range(60)) + "\n12:01 ERROR disk full"
HISTORY: list[ModelMessage] = [
    ModelRequest([SystemPromptPart("You find faults."), UserPromptPart("Read the log.")]),
    ModelResponse(
        [ThinkingPart("Two files."), ToolCallPart("read", {"path": "a"}, "c1"), ToolCallPart("read", "", "c2")]
    ),
    ModelRequest([ToolReturnPart("read", LOG, "c1"), ToolReturnPart("read", {"lines": []}, "c2")]),
    ModelResponse([TextPart("The disk was full.")]),
    ModelRequest([UserPromptPart("Since when?")]),
]


def parts_of(messages: list[ModelMessage], kind: type) -> list[Any]:
    return [part for message in messages for part in message.parts if isinstance(part, kind)]


def test_what_fits_is_sent_as_the_same_objects() -> None:
    sent = fit_history(HISTORY, window_tokens=10_000, counter=COUNTER)
    assert len(sent) == len(HISTORY) and all(one is given for one, given in zip(sent, HISTORY, strict=True))


@pytest.mark.parametrize("window", [20, 40, 60, 90, 130, 200, 400])
def test_rounds_are_whole_and_the_question_is_in(window: int) -> None:
    plans: list[Any] = []
    sent = fit_history(HISTORY, window_tokens=window, counter=COUNTER, on_plan=plans.append)
    calls = {part.tool_call_id for part in parts_of(sent, ToolCallPart)}
    assert calls == {part.tool_call_id for part in parts_of(sent, ToolReturnPart)}
    assert sent[-1] is HISTORY[-1] and parts_of(sent, SystemPromptPart) and plans[0].prompt_tokens <= window


def test_a_long_return_is_reduced_and_the_given_one_stays() -> None:
    history = [
        HISTORY[4],
        ModelResponse([ToolCallPart("read", {}, "c1")]),
        ModelRequest([ToolReturnPart("read", LOG, "c1")]),
    ]
    sent = fit_history(history, window_tokens=120, counter=COUNTER)
    [returned] = parts_of(sent, ToolReturnPart)
    assert "ERROR disk full" in returned.content and len(returned.content) < len(LOG)
    assert (returned.tool_call_id, returned.tool_name) == ("c1", "read") and parts_of(history, ToolReturnPart)[
        0
    ].content == LOG


def test_files_stay_beside_a_text_that_is_reduced() -> None:
    image = BinaryContent(_PNG, media_type="image/png")
    history = [ModelRequest([UserPromptPart([LOG, image])]), ModelResponse([TextPart("I see.")]), HISTORY[4]]
    sent = fit_history(history, window_tokens=1_200, counter=EstimatingCounter(media=OpenAITiles()))
    [text, shown] = sent[0].parts[0].content
    assert shown is image and len(text) < len(LOG)


def test_an_agent_stays_in_its_window_and_its_history_keeps_everything() -> None:
    seen: list[list[ModelMessage]] = []
    plans: list[Any] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(messages)
        if len(seen) == 1:
            return ModelResponse([ToolCallPart("read", {"path": "app.log"})])
        return ModelResponse([TextPart("Since 12:01.")])

    budget = ContextBudget(window_tokens=170, reserve_tokens=20, counter=COUNTER, on_plan=plans.append)
    agent = Agent(FunctionModel(answer), instructions="You find faults.", capabilities=[budget])

    @agent.tool_plain
    def read(path: str) -> str:
        """Read a file."""
        return LOG

    result = asyncio.run(agent.run("Since when?"))
    assert result.output == "Since 12:01."
    [sent], [kept] = (parts_of(messages, ToolReturnPart) for messages in (seen[-1], result.all_messages()))
    assert "disk full" in sent.content and len(sent.content) < len(LOG) and kept.content == LOG
    assert all(plan.prompt_tokens <= 150 and plan.tools_tokens > 0 for plan in plans)
    assert seen[-1][-1].instructions == "You find faults."


def test_it_works_as_a_history_processor() -> None:
    seen: list[list[ModelMessage]] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(messages)
        return ModelResponse([TextPart("Since 12:01.")])

    processor = ProcessHistory(partial(fit_history, window_tokens=90, counter=COUNTER))
    agent = Agent(FunctionModel(answer), capabilities=[processor])
    asyncio.run(agent.run("Since when?", message_history=HISTORY[:-1]))
    sent = seen[0]
    assert not parts_of(sent, ToolReturnPart) or all(
        len(str(one.content)) < len(LOG) for one in parts_of(sent, ToolReturnPart)
    )
    assert parts_of(sent, UserPromptPart)[-1].content == "Since when?"


def test_a_request_that_cannot_fit_is_not_made() -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise AssertionError("was asked")

    agent = Agent(FunctionModel(answer), capabilities=[ContextBudget(window_tokens=20, counter=COUNTER)])
    with pytest.raises(BudgetInfeasible):
        asyncio.run(agent.run(LOG))
    with pytest.raises(BudgetError):
        ContextBudget()


def test_a_broken_round_is_repaired_for_the_provider() -> None:
    sent = fit_history([HISTORY[0], HISTORY[1], HISTORY[4]], window_tokens=1_000, counter=COUNTER)
    calls = {part.tool_call_id for part in parts_of(sent, ToolCallPart)}
    assert calls == {part.tool_call_id for part in parts_of(sent, ToolReturnPart)}


def test_signed_thinking_is_never_edited() -> None:
    signed = ModelResponse([ThinkingPart(LOG, signature="s"), TextPart(LOG), ToolCallPart("read", {"text": LOG}, "c1")])
    history = [HISTORY[0], signed, ModelRequest([ToolReturnPart("read", "ok", "c1")]), HISTORY[3], HISTORY[4]]
    for window in (40, 300, 5_000):
        sent = fit_history(history, window_tokens=window, counter=COUNTER)
        assert all(message is signed for message in sent if parts_of([message], ThinkingPart))
    assert signed in sent


def test_nothing_to_fit_is_no_error() -> None:
    assert fit_history([], window_tokens=10) == []
    alone = [ModelRequest([], instructions="Say something.")]
    assert fit_history(alone, window_tokens=10) == alone
    carrier = [*HISTORY[:1], HISTORY[3], ModelRequest([], instructions="Go on.")]
    assert fit_history(carrier, window_tokens=1_000, counter=COUNTER)[-1] is carrier[-1]


_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc00000030101"
    "0018dd8db00000000049454e44ae426082"
)
