"""LangChain's own ChatOpenAI against the server, by LangChain's own standard suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("langchain_tests")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from syrupy.assertion import SnapshotAssertion

from ctxkit.server import Service
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import tiny_model
from tests.obliging import Obliging, TextAlone
from tests.server.letters import Letters
from tests.server.running import RunningServer

_MAGIC = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def _one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """ChatOpenAI shares connections among all its instances, and they live no longer than their event loop."""
    yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = open_database(str(tmp_path_factory.mktemp("langchain") / "sessions.db"))
    models = {"obliging": Obliging(), "other": Obliging(), "tiny": tiny_model()}
    server = RunningServer(Service(models, store=SessionStore(database), encoder=Letters()))
    yield server.root
    server.close()
    database.close()


class _Stock:
    """ChatOpenAI with the address of the server, and nothing else that OpenAI would not be asked for."""

    root: ClassVar[str] = "http://127.0.0.1:1"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _served(cls, root: str) -> None:
        cls.root = root

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # stream_usage: at another address than OpenAI's ChatOpenAI does not ask for it by itself
        return {"model": "obliging", "base_url": f"{self.root}/v1", "api_key": "none", "stream_usage": True}

    @property
    def model_override_value(self) -> str:
        return "other"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


class TestChatUnits(_Stock, ChatModelUnitTests):
    @pytest.mark.xfail(reason="it compares with a file that only ChatOpenAI's own repository has")
    def test_serdes(self, model: BaseChatModel, snapshot: SnapshotAssertion) -> None:
        super().test_serdes(model, snapshot)


class TestChat(_Stock, ChatModelIntegrationTests):
    pass


class TestResponses(_Stock, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}


class TestChatOfALocalModel(TextAlone, _Stock, ChatModelIntegrationTests):
    """A Llama of random weights: it answers, streams, counts and stops."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "model": "tiny", "max_tokens": 12}

    @property
    def model_override_value(self) -> str:
        return "obliging"

    @property
    def supports_json_mode(self) -> bool:
        return False


def test_a_conversation_goes_on_from_the_answer_that_the_server_keeps(root: str) -> None:
    chat = ChatOpenAI(model="obliging", base_url=f"{root}/v1", api_key="none", use_previous_response_id=True)
    asked = [HumanMessage("What is the magic of 3?")]
    tool = {"name": "magic", "description": "The magic of a number.", "parameters": _MAGIC}
    called = chat.bind_tools([tool]).invoke(asked)
    assert isinstance(called, AIMessage) and called.tool_calls[0]["name"] == "magic"
    answered = ToolMessage("5", tool_call_id=called.tool_calls[0]["id"])
    final = chat.bind_tools([tool]).invoke([*asked, called, answered])
    kept = chat.root_client.responses.input_items.list(final.response_metadata["id"], order="asc").data
    assert [item.type for item in kept] == ["message", "function_call", "function_call_output"]
    own = chat.root_client.responses.retrieve(final.response_metadata["id"])
    assert own.previous_response_id == called.response_metadata["id"] and final.text.startswith("Hello")


def test_a_chain_of_runnables_streams(root: str) -> None:
    chat = ChatOpenAI(model="obliging", base_url=f"{root}/v1", api_key="none")
    chain = ChatPromptTemplate.from_messages([("system", "Be {mood}."), ("user", "{text}")]) | chat | StrOutputParser()
    pieces = list(chain.stream({"mood": "kind", "text": "Hi"}))
    assert "".join(pieces) == "Hello to you, and here is some more to stream." and len([*filter(None, pieces)]) > 3


def test_embeddings_are_the_servers(root: str) -> None:
    # check_embedding_ctx_length: else it counts with tiktoken, and sends tokens of a vocabulary that is not the model's
    embeddings = OpenAIEmbeddings(
        model="letters", base_url=f"{root}/v1", api_key="none", check_embedding_ctx_length=False
    )
    one, other = embeddings.embed_documents(["abc", "zzz"])
    assert len(one) == 26 and one != other and embeddings.embed_query("abc") == one
