"""Haystack: components in its own pipelines, saved and loaded by them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline, component
from haystack.dataclasses import ChatMessage, ImageContent, ToolCall
from haystack.tools import Tool

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import BudgetError, BudgetInfeasible
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter, OpenAITiles
from ctxkit_connectors.haystack import CtxkitDocumentCompressor, CtxkitPromptFitter, CtxkitRetriever

COUNTER = WhitespaceCounter()
LOG = "\n".join(f"12:00:{i:02} INFO request {i} took {3 + i % 5} ms" for i in range(60)) + "\n12:01 ERROR disk full"
CALL = ToolCall("read", {"path": "app.log"}, id="c1")
HISTORY = [
    ChatMessage.from_system("You find faults."),
    ChatMessage.from_user("Read the log."),
    ChatMessage.from_assistant(tool_calls=[CALL]),
    ChatMessage.from_tool(LOG, origin=CALL),
    ChatMessage.from_assistant("The disk was full."),
    ChatMessage.from_user("Since when?"),
]
DOCUMENTS = [
    Document(id="t", content="Trains are late. Nobody knows why. It has always been so.", score=0.4),
    Document(id="b", content="The colony has 4,321 birds. It rains there often.", meta={"page": 3}, score=0.2),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    with Index.open(tmp_path / "index", encoder=HashingEncoder(), create=True) as index:
        chunks = [Chunk(f"c{n}", f"{n}.md", f"River number {n} meets the sea.", metadata={"year": n}) for n in range(5)]
        index.add(chunks)
    yield str(tmp_path / "index")


def test_a_pipeline_retrieves_and_compresses_and_is_the_same_after_it_was_saved(folder: str) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", CtxkitRetriever(folder, top_k=3, sources=["*.md"]))
    pipeline.add_component("compressor", CtxkitDocumentCompressor(max_tokens=30, method="bm25"))
    pipeline.connect("retriever.documents", "compressor.documents")
    query = "Which is river number 3?"
    asked = {"retriever": {"query": query}, "compressor": {"query": query}}
    first = pipeline.run(asked)["compressor"]["documents"]
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["ctxkit_connectors"]).run(asked)["compressor"][
        "documents"
    ]
    assert first == again and first[0].id == "c3" and first[0].meta["location"] == "3.md:1"


def test_the_retriever_finds_what_the_index_finds_sync_and_async(folder: str) -> None:
    with Index.open(folder, encoder=HashingEncoder()) as index:
        retriever = CtxkitRetriever(index, top_k=4)
        found = retriever.run("river", top_k=2, where={"year": {">=": 2}})["documents"]
        hits = index.search("river", 2, where={"year": {">=": 2}})
        assert [(one.id, one.score, one.meta["year"]) for one in found] == [
            (hit.chunk.id, hit.relevance, hit.chunk.metadata["year"]) for hit in hits
        ]
        assert len(asyncio.run(retriever.run_async("river"))["documents"]) == 4
        retriever.close()
        assert len(index.search("river", 1)) == 1, "an index that was passed is not closed"
        assert retriever.to_dict()["init_parameters"]["index"] == folder


def test_an_index_that_was_opened_is_closed_and_opened_again(folder: str) -> None:
    retriever = CtxkitRetriever(folder)
    retriever.close()
    before = retriever.run("river")["documents"]
    retriever.close()
    assert retriever.run("river")["documents"] == before
    retriever.close()


def test_documents_take_the_tokens_that_they_may_and_keep_the_rest() -> None:
    compressor = CtxkitDocumentCompressor(max_tokens=8, method="bm25", counter=COUNTER)
    made = compressor.run("How many birds?", DOCUMENTS)["documents"]
    assert sum(COUNTER.count(one.content or "") for one in made) <= 8
    assert [(one.id, one.meta, one.score) for one in made if "4,321" in (one.content or "")] == [
        ("b", {"page": 3}, 0.2)
    ]
    assert [one.id for one in compressor.run("birds", DOCUMENTS, top_k=1)["documents"]] == ["t"]
    assert asyncio.run(compressor.run_async("birds", [])) == {"documents": []}


def test_a_rate_of_1_changes_nothing_and_what_has_no_text_stays() -> None:
    empty = Document(id="e", content=None)
    keep_all = CtxkitDocumentCompressor(rate=1.0, method="bm25")
    made = keep_all.run("birds", [*DOCUMENTS, empty])["documents"]
    assert all(one is given for one, given in zip(made, [*DOCUMENTS, empty], strict=True))
    none = CtxkitDocumentCompressor(rate=0.0, method="bm25")
    assert none.run("birds", [*DOCUMENTS, empty])["documents"] == [empty]


@pytest.mark.parametrize("window", [20, 40, 60, 90, 130, 200, 400, 2_000])
def test_rounds_are_whole_and_what_is_whole_is_the_same_object(window: int) -> None:
    sent = CtxkitPromptFitter(window, counter=COUNTER).run(HISTORY)["messages"]
    calls = [call.id for message in sent for call in message.tool_calls]
    assert calls == [result.origin.id for message in sent for result in message.tool_call_results]
    assert sent[0] is HISTORY[0] and sent[-1] is HISTORY[-1]
    assert window < 2_000 or all(one is given for one, given in zip(sent, HISTORY, strict=True))


def test_a_long_result_is_reduced_and_keeps_its_call() -> None:
    given = [*HISTORY[:4]]
    made = CtxkitPromptFitter(140, 20, counter=COUNTER).run(given)
    result = made["messages"][-1].tool_call_result
    assert result.origin == CALL and "disk full" in result.result and len(result.result) < len(LOG)
    assert made["report"].startswith("1") and given[3].tool_call_result.result == LOG


def test_images_stay_beside_a_text_that_is_reduced_and_reasoning_is_never_edited() -> None:
    image = ImageContent(_PNG, mime_type="image/png", detail="low", validation=False)
    seen = ChatMessage.from_user(content_parts=[LOG, image])
    thought = ChatMessage.from_assistant(LOG, reasoning="Hm.")
    fitter = CtxkitPromptFitter(1_000, counter=EstimatingCounter(media=OpenAITiles()))
    between = [ChatMessage.from_assistant("I see."), ChatMessage.from_user("And now?")]
    sent = fitter.run([seen, *between, thought, *HISTORY[5:]])["messages"]
    shown = next(message for message in sent if message.images)
    assert shown.image is image and shown.text and len(shown.text) < len(LOG)
    assert all(message is thought for message in sent if message.reasonings)


def test_tools_are_counted_and_what_cannot_fit_is_refused() -> None:
    tool = Tool("read", "Read a file. " * 20, {"type": "object", "properties": {}}, function=len)
    fitter = CtxkitPromptFitter(40, counter=COUNTER)
    assert fitter.run(HISTORY)["messages"][-1] is HISTORY[-1]
    with pytest.raises(BudgetInfeasible):
        fitter.run(HISTORY, tools=[tool])
    assert asyncio.run(fitter.run_async([])) == {"messages": [], "report": ""}


def test_a_fitter_stands_before_a_generator_in_a_pipeline() -> None:
    @component
    class Echo:
        @component.output_types(replies=list[ChatMessage])
        def run(self, messages: list[ChatMessage]) -> dict[str, list[ChatMessage]]:
            return {"replies": [ChatMessage.from_assistant(str(len(messages)))]}

    pipeline = Pipeline()
    pipeline.add_component("fitter", CtxkitPromptFitter(400))
    pipeline.add_component("generator", Echo())
    pipeline.connect("fitter.messages", "generator.messages")
    replies = pipeline.run({"fitter": {"messages": HISTORY}})["generator"]["replies"]
    assert 2 <= int(replies[0].text) <= len(HISTORY)
    assert CtxkitPromptFitter.from_dict(CtxkitPromptFitter(400, 10).to_dict()).reserve_tokens == 10


def test_what_cannot_be_saved_or_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="name a `model`"):
        CtxkitPromptFitter(40, counter=COUNTER).to_dict()
    with pytest.raises(ValueError, match="either `max_tokens` or `rate`"):
        CtxkitDocumentCompressor()
    with pytest.raises(BudgetError):
        CtxkitPromptFitter(10, 20)


_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVQI12P4z8AAAAMBAQAY3Y2wAAAAAElFTkSuQmCC"
