"""LangChain's own standard suites, on CtxkitRetriever and ChatCtxkit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import ChatModelIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import tiny_model
from ctxkit_connectors.langchain import ChatCtxkit, CtxkitRetriever
from tests.obliging import Obliging, TextAlone

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self) -> Iterator[None]:
        with Index.in_memory(encoder=HashingEncoder()) as index:
            index.add([Chunk(f"c{n}", "rivers.md", f"River number {n} meets the sea.") for n in range(5)])
            self._opened = index
            yield

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return CtxkitRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self._opened}

    @property
    def retriever_query_example(self) -> str:
        return "Which river meets the sea?"


class _Declared:
    """What holds for every model of ctxkit behind LangChain."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCtxkit

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 100, "stop": []}  # timeout and retries are the model's own affair

    @property
    def supports_model_override(self) -> bool:
        return False  # the model is an object


class TestChatUnits(_Declared, ChatModelUnitTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": Obliging()}


class TestChat(_Declared, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": Obliging()}

    @property
    def supports_json_mode(self) -> bool:
        return True


_tiny = tiny_model()


class TestChatOfALocalModel(TextAlone, _Declared, ChatModelIntegrationTests):
    """A Llama of random weights: it answers, streams, counts and stops."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": _tiny, "max_tokens": 12}
