"""ChatCtxkit and CtxkitRetriever beyond LangChain's standard suites, which are in test_langchain_standard.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import ModelError, PromptError
from ctxkit.protocols import Reply, Sampling
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import ScriptedModel
from ctxkit_connectors.langchain import ChatCtxkit, ContextBudgetMiddleware, CtxkitRetriever


class Watched(ScriptedModel):
    """Remembers how it was asked to answer, and the streams that it gave out."""

    def __init__(self, replies: Any, **options: Any) -> None:
        super().__init__(replies, **options)
        self.sampled: list[Sampling] = []
        self.streams: list[Any] = []

    def stream(self, prompt: Any, sampling: Sampling = Sampling()) -> Any:  # noqa: B008 - frozen
        self.sampled.append(sampling)
        self.streams.append(super().stream(prompt, sampling))
        return self.streams[-1]


class Joke(BaseModel):
    setup: str
    punchline: str


def call(arguments: str) -> list[dict[str, Any]]:
    return [{"id": "c1", "type": "function", "function": {"name": "read", "arguments": arguments}}]


@tool
def read(path: str) -> str:
    """Read a file."""
    return f"{path} is empty"


def test_what_is_asked_is_what_the_model_samples_by() -> None:
    model = Watched(lambda request: "yes")
    chat = ChatCtxkit(model=model, max_tokens=9, temperature=0.5, seed=3, stop=["."])
    chat.invoke("a")
    chat.invoke("a", stop=["!"], temperature=0.0, top_k=4)
    asyncio.run(chat.ainvoke("a", response_format={"type": "json_object"}))
    first, second, third = model.sampled
    assert first == Sampling(max_tokens=9, temperature=0.5, seed=3, stop=(".",))
    assert second == Sampling(max_tokens=9, temperature=0.0, seed=3, top_k=4, stop=("!",))
    assert third.response_format == {"type": "json_object"}


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        (None, None),
        (False, None),
        (True, "required"),
        ("any", "required"),
        ("auto", "auto"),
        ("read", {"type": "function", "function": {"name": "read"}}),
    ],
)
def test_tools_reach_the_model_as_openai_writes_them(choice: Any, asked: Any) -> None:
    model = Watched(lambda request: "yes")
    ChatCtxkit(model=model).bind_tools([read], tool_choice=choice).invoke("a")
    assert model.prompts[0].tools[0]["function"]["name"] == "read"
    assert model.sampled[0].tool_choice == asked


def test_a_call_that_is_no_json_is_an_invalid_call() -> None:
    model = ScriptedModel([call('{"path": "a"}'), call('{"path": ')])
    chat = ChatCtxkit(model=model)
    assert chat.invoke("a").tool_calls == [{"type": "tool_call", "id": "c1", "name": "read", "args": {"path": "a"}}]
    broken = chat.invoke("a")
    assert broken.tool_calls == [] and broken.invalid_tool_calls[0]["args"] == '{"path": '


def test_pieces_add_up_to_what_invoke_says_sync_and_async() -> None:
    chat = ChatCtxkit(model=ScriptedModel(lambda request: "Hello to you."))

    async def streamed() -> list[AIMessageChunk]:
        return [chunk async for chunk in chat.astream("hi")]

    whole = chat.invoke("hi")
    for chunks in (list(chat.stream("hi")), asyncio.run(streamed())):
        assert len(chunks) > 3
        added = chunks[0]
        for chunk in chunks[1:]:
            added += chunk
        assert (added.content, added.usage_metadata) == (whole.content, whole.usage_metadata)
        assert added.response_metadata == whole.response_metadata
    assert asyncio.run(chat.ainvoke("hi")).content == whole.content
    assert whole.usage_metadata == {"input_tokens": 6, "output_tokens": 3, "total_tokens": 9}


def test_a_stream_that_is_dropped_stops_the_model() -> None:
    model = Watched(lambda request: "one two three four")
    stream = ChatCtxkit(model=model).stream("count")
    next(stream)
    stream.close()
    assert model.streams[0].reply.finish_reason == "cancelled"


def test_a_form_is_asked_for_and_read() -> None:
    joke = '{"setup": "Why?", "punchline": "Because."}'
    model = Watched(lambda request: joke)
    chat = ChatCtxkit(model=model)
    assert chat.with_structured_output(Joke).invoke("joke") == Joke(setup="Why?", punchline="Because.")
    assert chat.with_structured_output(Joke.model_json_schema()).invoke("joke") == json.loads(joke)
    assert chat.with_structured_output(Joke, method="json_mode").invoke("joke").setup == "Why?"
    asked = [sampling.response_format or {} for sampling in model.sampled]
    assert [form["type"] for form in asked] == ["json_schema", "json_schema", "json_object"]
    assert asked[0]["json_schema"]["schema"]["required"] == ["setup", "punchline"]
    with pytest.raises(ValueError, match="`method` must be"):
        chat.with_structured_output(Joke, method="xml")  # type: ignore[arg-type]


def test_a_form_by_a_tool_call() -> None:
    answer = [
        {"id": "c1", "type": "function", "function": {"name": "Joke", "arguments": '{"setup":"a","punchline":"b"}'}}
    ]
    model = Watched([answer])
    made = ChatCtxkit(model=model).with_structured_output(Joke, method="function_calling").invoke("joke")
    assert made == Joke(setup="a", punchline="b") and model.sampled[0].tool_choice == "required"


def test_half_an_answer_is_an_error_and_no_answer() -> None:
    chat = ChatCtxkit(model=ScriptedModel(lambda request: '{"setup": "a" , "punchline": "b" }'), max_tokens=4)
    with pytest.raises(OutputParserException, match="max_tokens"):
        chat.with_structured_output(Joke.model_json_schema()).invoke("joke")
    with pytest.raises(OutputParserException, match="max_tokens"):
        asyncio.run(chat.with_structured_output(Joke).ainvoke("joke"))
    raw = chat.with_structured_output(Joke, include_raw=True).invoke("joke")
    assert raw["parsed"] is None and isinstance(raw["parsing_error"], OutputParserException)
    assert raw["raw"].response_metadata["finish_reason"] == "length"


def test_what_no_model_takes_is_refused() -> None:
    chat = ChatCtxkit(model=ScriptedModel(lambda request: "yes"))
    with pytest.raises(TypeError, match="'logit_bias'"):
        chat.invoke("a", logit_bias={})
    with pytest.raises(ValidationError):
        ChatCtxkit(model=ScriptedModel([]), temprature=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        ChatCtxkit(model="gpt")  # type: ignore[arg-type]


def test_errors_of_the_model_come_through() -> None:
    with pytest.raises(ModelError):
        ChatCtxkit(model=ScriptedModel([ModelError("no")])).invoke("a")
    with pytest.raises(PromptError):
        ChatCtxkit(model=ScriptedModel(["yes"], window_tokens=300)).invoke("word " * 100)


def test_tokens_are_those_that_the_model_reads() -> None:
    model = ScriptedModel(lambda request: "yes")
    chat = ChatCtxkit(model=model, max_tokens=92)
    messages: list[Any] = [
        HumanMessage("Read a."),
        AIMessage("", tool_calls=[{"id": "c1", "name": "read", "args": {"path": "a"}}]),
        ToolMessage("nothing", tool_call_id="c1"),
    ]
    usage = chat.bind_tools([read]).invoke(messages).usage_metadata
    assert usage and chat.get_num_tokens_from_messages(messages, [read]) == usage["input_tokens"]
    assert chat.get_num_tokens("two words") == 2 and chat.profile == {"max_input_tokens": 8100}


def test_what_a_model_thought_stands_beside_what_it_said() -> None:
    class Thinking(ScriptedModel):
        def generate(self, prompt: Any, sampling: Any = None) -> Reply:
            return Reply("4", "stop", 5, 1, "thinker", reasoning="2 and 2")

    said = ChatCtxkit(model=Thinking([])).invoke("2+2?")
    assert (said.content, said.additional_kwargs["reasoning_content"]) == ("4", "2 and 2")


def test_an_agent_of_langchain_runs_on_it_within_its_window() -> None:
    model = ScriptedModel([call('{"path": "a.txt"}'), "It is empty."], window_tokens=400)
    middleware = ContextBudgetMiddleware(window_tokens=400, reserve_tokens=256, counter=model.counter)
    agent = create_agent(ChatCtxkit(model=model), [read], middleware=[middleware])
    state = agent.invoke({"messages": [HumanMessage("What is in a.txt?")]})
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == "It is empty." and state["messages"][2].text == "a.txt is empty"


@pytest.fixture
def index() -> Iterator[Index]:
    with Index.in_memory(encoder=HashingEncoder()) as opened:
        opened.add(
            [Chunk(f"c{n}", f"{n}.md", f"River number {n} meets the sea.", metadata={"year": n}) for n in range(5)]
        )
        yield opened


def test_a_retriever_gives_text_place_and_scores(index: Index) -> None:
    retriever = CtxkitRetriever(index=index, k=2, where={"year": {">=": 2}})
    found = retriever.invoke("river number 3")
    hits = index.search("river number 3", 2, where={"year": {">=": 2}})
    assert [(one.id, one.metadata["relevance"]) for one in found] == [(hit.chunk.id, hit.relevance) for hit in hits]
    assert found[0].metadata["location"] == "3.md:1" and found[0].metadata["year"] == 3


def test_a_query_may_ask_otherwise_sync_and_async(index: Index) -> None:
    retriever = CtxkitRetriever(index=index)
    assert [one.id for one in retriever.invoke("river", k=9, sources=["4.*"], mode="lexical")] == ["c4"]
    assert [one.id for one in asyncio.run(retriever.ainvoke("river number 1", k=1))] == ["c1"]
    with pytest.raises(ValueError, match="k"):
        retriever.invoke("river", k=0)
    with pytest.raises(ValidationError):
        CtxkitRetriever(index=index, k=0)
