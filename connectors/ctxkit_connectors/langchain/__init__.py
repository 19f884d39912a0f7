"""LangChain: `trim_messages` that never breaks a tool round, `fit_messages` that reduces before it drops, a middleware,
a document compressor, a retriever, a chat model and a chat history.

Raises MissingExtra where langchain-core (for the middleware: langchain) is not installed.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ctxkit.errors import MissingExtra

if find_spec("langchain_core") is None:
    raise MissingExtra("langchain-core", "langchain")

if TYPE_CHECKING:
    from ctxkit_connectors.langchain.chat import ChatCtxkit
    from ctxkit_connectors.langchain.compressor import DocumentCompressor
    from ctxkit_connectors.langchain.counter import LangChainCounter
    from ctxkit_connectors.langchain.fitting import fit_messages
    from ctxkit_connectors.langchain.history import StoredChatHistory
    from ctxkit_connectors.langchain.messages import OpenAIForm
    from ctxkit_connectors.langchain.middleware import ContextBudgetMiddleware
    from ctxkit_connectors.langchain.retriever import CtxkitRetriever
    from ctxkit_connectors.langchain.trim import trim_messages

_ON_USE = {
    "ChatCtxkit": "chat",
    "ContextBudgetMiddleware": "middleware",
    "CtxkitRetriever": "retriever",
    "DocumentCompressor": "compressor",
    "LangChainCounter": "counter",
    "OpenAIForm": "messages",
    "StoredChatHistory": "history",
    "fit_messages": "fitting",
    "trim_messages": "trim",
}

__all__ = [
    "ChatCtxkit",
    "ContextBudgetMiddleware",
    "CtxkitRetriever",
    "DocumentCompressor",
    "LangChainCounter",
    "OpenAIForm",
    "StoredChatHistory",
    "fit_messages",
    "trim_messages",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
