"""LlamaIndex: retriever, postprocessor and memory block, used by the framework itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.memory import Memory
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from pydantic import ValidationError

from ctxkit.compression import SentenceSelector
from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import WhitespaceCounter
from ctxkit_connectors.llama_index import CompressingMemoryBlock, CtxkitRetriever, NodeCompressor

COUNTER = WhitespaceCounter()
BY_SENTENCE = SentenceSelector()


@pytest.fixture
def index() -> Iterator[Index]:
    with Index.in_memory(encoder=HashingEncoder()) as opened:
        opened.add(
            [Chunk(f"c{n}", f"{n}.md", f"River number {n} meets the sea.", metadata={"year": n}) for n in range(5)]
        )
        yield opened


def nodes() -> list[NodeWithScore]:
    texts = [
        "Trains are late. Nobody knows why. It has always been so.",
        "The colony has 4,321 birds. It rains there often.",
    ]
    return [NodeWithScore(node=TextNode(text=text, id_=f"n{n}"), score=1 - n / 2) for n, text in enumerate(texts)]


def test_a_retriever_finds_what_the_index_finds_sync_and_async(index: Index) -> None:
    retriever = CtxkitRetriever(index, k=2, where={"year": {">=": 2}})
    found = retriever.retrieve("river number 3")
    hits = index.search("river number 3", 2, where={"year": {">=": 2}})
    assert [(node.node_id, node.score) for node in found] == [(hit.chunk.id, hit.relevance) for hit in hits]
    assert found[0].metadata["location"] == "3.md:1" and found[0].metadata["year"] == 3
    assert "relevance" not in found[0].node.get_content(metadata_mode=MetadataMode.LLM)
    assert [node.node_id for node in asyncio.run(retriever.aretrieve("river number 3"))] == [n.node_id for n in found]


def test_a_query_engine_reads_what_the_compressor_left(index: Index) -> None:
    compressor = NodeCompressor(max_tokens=6, compressor=BY_SENTENCE, counter=COUNTER)
    engine = RetrieverQueryEngine.from_args(
        CtxkitRetriever(index, k=3), llm=MockLLM(), node_postprocessors=[compressor], response_mode="compact"
    )
    answer = engine.query("Which is river number 3?")
    assert [node.node_id for node in answer.source_nodes] == ["c3"]
    assert "River number 3 meets the sea." in str(answer)  # the mock repeats its prompt


def test_texts_take_the_tokens_that_they_may_and_the_rest_stays() -> None:
    given = nodes()
    made = NodeCompressor(max_tokens=8, compressor=BY_SENTENCE, counter=COUNTER).postprocess_nodes(
        given, query_str="How many birds?"
    )
    assert sum(COUNTER.count(node.node.get_content()) for node in made) <= 8
    assert [(node.node_id, node.score) for node in made if "4,321" in node.text] == [("n1", 0.5)]
    assert given[0].text.startswith("Trains are late."), "the retriever's own nodes stay as they are"


def test_a_rate_of_1_changes_nothing_and_what_has_no_text_stays() -> None:
    picture = NodeWithScore(node=ImageNode(image_url="https://example.org/a.png", id_="i"), score=0.1)
    keep_all, none = (NodeCompressor(rate=rate, compressor=BY_SENTENCE, counter=COUNTER) for rate in (1.0, 0.0))
    assert [node.node for node in keep_all.postprocess_nodes([*nodes(), picture])] == [
        n.node for n in [*nodes(), picture]
    ]
    assert [node.node_id for node in none.postprocess_nodes([*nodes(), picture])] == ["i"]
    assert keep_all.postprocess_nodes([]) == []
    assert asyncio.run(keep_all.apostprocess_nodes(nodes()))[0].text == nodes()[0].text


@pytest.mark.parametrize("limits", [{}, {"rate": 0.5, "max_tokens": 3}, {"rate": 1.5}, {"max_tokens": -1}, {"rte": 1}])
def test_limits_that_contradict_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        NodeCompressor(**limits)


def test_a_memory_stays_in_its_limit_and_keeps_what_the_question_needs() -> None:
    facts = ["The gate code is 4711.", "Lunch was soup again.", "The bus is often late.", "Ines likes green tea."]
    block = CompressingMemoryBlock(name="earlier", compressor=BY_SENTENCE, counter=COUNTER)

    async def remembered() -> list[ChatMessage]:
        memory = Memory.from_defaults(
            token_limit=40,
            token_flush_size=10,
            chat_history_token_ratio=0.4,
            memory_blocks=[block],
            tokenizer_fn=lambda text: list(range(COUNTER.count(text))),
        )
        for number, fact in enumerate(facts * 3):
            await memory.aput(ChatMessage(role="user", content=f"{fact} Day {number} was quiet."))
            await memory.aput(ChatMessage(role="assistant", content="Noted."))
        await memory.aput(ChatMessage(role="user", content="What is the gate code?"))
        return await memory.aget()

    messages = asyncio.run(remembered())
    said = " ".join(message.content or "" for message in messages)
    assert COUNTER.count(said) <= 40 and "4711" in said and messages[-1].content == "What is the gate code?"
    assert COUNTER.count(asyncio.run(block.aget())) > 40, "what is stored is whole"


def test_a_block_gives_up_only_what_it_is_asked_for() -> None:
    async def used() -> None:
        block = CompressingMemoryBlock(name="earlier", compressor=BY_SENTENCE, counter=COUNTER)
        assert await block.aget() == "" and await block.atruncate("", 1) is None
        await block.aput([ChatMessage(role="user", content="One two three. Four five six."), ChatMessage(content=None)])
        content = await block.aget([])
        assert content == "user: One two three. Four five six." and await block.atruncate(content, 7) is None
        shorter = await block.atruncate(content, 3)
        assert shorter and COUNTER.count(shorter) <= 4 and await block.aget() == content

    asyncio.run(used())
