"""LangChain's own standard suites, on CtxkitRetriever and ChatCtxkit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import ChatModelIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from ctxkit.documents.chunk import Chunk
from ctxkit.models.requests import GREEDY, Promptable, Request
from ctxkit.models.streams import PieceStream
from ctxkit.protocols import Sampling
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit.testing.scripted import Line
from ctxkit_connectors.langchain import ChatCtxkit, CtxkitRetriever

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Obliging(ScriptedModel):
    """Does what the suite's prompts ask for: calls the tool that is named or fits, fills the form that is asked for."""

    def __init__(self) -> None:
        super().__init__(self._obliged, name="obliging")
        self._sampling = GREEDY

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        self._sampling = sampling
        return super().stream(prompt, sampling)

    def _obliged(self, request: Request) -> Line:
        form = self._sampling.response_format
        if form is not None:
            schema = form["json_schema"]["schema"] if "json_schema" in form else _JOKE
            return json.dumps(_filled(schema))
        answered = request.messages[-1].role == "tool"
        if request.tools and (not answered or self._sampling.tool_choice == "required"):
            return [_call(_chosen(request, self._sampling.tool_choice), request.messages[-1].content)]
        return "Hello to you, and here is some more to stream."


_JOKE = {"properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}}}
_WORTH: dict[str, Any] = {"integer": 3, "number": 3.0, "array": [], "object": {}, "boolean": True}
_QUOTED = re.compile("'(.+?)'")


def _filled(schema: dict[str, Any], asked: str = "") -> dict[str, Any]:
    """Any values of the right types; texts are what the question puts in quotes."""
    text = quoted[1] if (quoted := _QUOTED.search(asked)) else "a text"
    return {key: _WORTH.get(one.get("type"), text) for key, one in schema.get("properties", {}).items()}


def _chosen(request: Request, choice: Any) -> dict[str, Any]:
    functions = [tool["function"] for tool in request.tools]
    wanted = choice["function"]["name"] if isinstance(choice, dict) else functions[0]["name"]
    return next(function for function in functions if function["name"] == wanted)


def _call(function: dict[str, Any], asked: str) -> dict[str, Any]:
    arguments = json.dumps(_filled(function.get("parameters", {}), asked), ensure_ascii=False)
    return {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}


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


class TestChatOfALocalModel(_Declared, ChatModelIntegrationTests):
    """A Llama of random weights: it answers, streams, counts and stops; it neither calls tools nor writes JSON."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": _tiny, "max_tokens": 12}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False
