"""DocumentCompressor: a retriever's documents under one budget, as LangChain asks for them."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document
from pydantic import ValidationError

from ctxkit.compression import NoStopWords
from ctxkit.testing import WhitespaceCounter
from ctxkit_connectors.langchain import DocumentCompressor

COUNTER = WhitespaceCounter()
DOCUMENTS = [
    Document("Trains are late. Nobody knows why. It has always been so.", metadata={"source": "trains"}, id="t"),
    Document("The Zorblax colony has 4,321 birds. It rains there often.", metadata={"source": "birds"}, id="b"),
]


def test_documents_take_the_tokens_that_they_may_and_keep_id_and_metadata() -> None:
    made = DocumentCompressor(max_tokens=8, counter=COUNTER).compress_documents(DOCUMENTS, "How many birds?")
    assert sum(COUNTER.count(document.page_content) for document in made) <= 8
    assert [(d.id, d.metadata["source"]) for d in made if "4,321" in d.page_content] == [("b", "birds")]
    assert DOCUMENTS[0].page_content.startswith("Trains are late."), "the retriever's own documents stay as they are"


def test_a_rate_of_1_changes_nothing() -> None:
    assert DocumentCompressor(rate=1.0, counter=COUNTER).compress_documents(DOCUMENTS, "birds") == DOCUMENTS


def test_any_method_will_do_and_async_is_the_same() -> None:
    compressor = DocumentCompressor(rate=0.5, compressor=NoStopWords(), counter=COUNTER)
    made = compressor.compress_documents(DOCUMENTS, "birds")
    assert asyncio.run(compressor.acompress_documents(DOCUMENTS, "birds")) == made
    assert DocumentCompressor(rate=0.5).compress_documents([], "birds") == []


@pytest.mark.parametrize("limits", [{}, {"rate": 0.5, "max_tokens": 3}, {"rate": 1.5}, {"max_tokens": -1}, {"rte": 1}])
def test_limits_that_contradict_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DocumentCompressor(**limits)  # type: ignore[arg-type]
