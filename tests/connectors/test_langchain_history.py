"""StoredChatHistory: LangChain's conversations in ctxkit's store, whole and apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables.history import RunnableWithMessageHistory

from ctxkit.errors import StoreError
from ctxkit.session import MemoryOriginals, SqliteOriginals
from ctxkit_connectors.langchain import StoredChatHistory

ROUND: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage(
        [{"type": "text", "text": "Weather?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}], name="ann"
    ),
    AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Zürich"}, "id": "call_1"}], id="run-1"),
    ToolMessage("Rain.", tool_call_id="call_1", artifact={"mm": 3}),
    AIMessage("It rains. ☂", usage_metadata={"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}),
]


def test_messages_come_back_as_they_were_also_to_another_process(tmp_path: Path) -> None:
    with SqliteOriginals(tmp_path / "store.db") as store:
        StoredChatHistory("s1", store).add_messages(ROUND)
    with SqliteOriginals(tmp_path / "store.db") as store:
        assert StoredChatHistory("s1", store).messages == ROUND


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["add", "clear"]) | st.lists(st.text(), max_size=3), max_size=8))
def test_it_is_a_list_of_messages(steps: list[Any]) -> None:
    history, plain = StoredChatHistory("s"), list[BaseMessage]()
    for step in steps:
        if step == "clear":
            history.clear()
            plain = []
        else:
            added = [HumanMessage(text) for text in ([] if step == "add" else step)]
            history.add_messages(added)
            plain += added
        assert history.messages == plain


def test_conversations_are_apart_and_the_async_face_is_the_same() -> None:
    async def main() -> None:
        store = MemoryOriginals()
        first, second = StoredChatHistory("a", store), StoredChatHistory("ab", store)
        await first.aadd_messages(ROUND[:2])
        await second.aadd_messages(ROUND[2:])
        await first.aclear()
        assert await first.aget_messages() == [] and await second.aget_messages() == ROUND[2:]

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory:DeprecationWarning")
def test_a_runnable_with_history_goes_on() -> None:
    store = MemoryOriginals()
    model = RunnableWithMessageHistory(
        FakeListChatModel(responses=["Paris.", "Two million."]), lambda session_id: StoredChatHistory(session_id, store)
    )
    for asked in ("Capital?", "How many live there?"):
        model.invoke([HumanMessage(asked)], {"configurable": {"session_id": "s"}})
    said = [message.text for message in StoredChatHistory("s", store).messages]
    assert said == ["Capital?", "Paris.", "How many live there?", "Two million."]


@pytest.mark.parametrize("wrong", ["", "a/b"])
def test_a_name_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="session_id"):
        StoredChatHistory(wrong)


def test_what_cannot_be_kept_is_refused_before_anything_is_written() -> None:
    history = StoredChatHistory("s")
    with pytest.raises(ValueError, match="cannot be kept"):
        history.add_messages([HumanMessage("first"), ToolMessage("x", tool_call_id="1", artifact=object())])
    assert history.messages == []


def test_a_damaged_store_is_said() -> None:
    store = MemoryOriginals()
    history = StoredChatHistory("s", store)
    history.add_messages(ROUND)
    store.put("langchain:s/00000001", "")
    with pytest.raises(StoreError, match="restore the store"):
        _ = history.messages
