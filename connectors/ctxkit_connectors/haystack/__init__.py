"""Haystack: a retriever over an index, a compressor of documents, and a fitter of prompts, as components.

Raises MissingExtra where haystack-ai is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from ctxkit.errors import MissingExtra

if find_spec("haystack") is None:
    raise MissingExtra("haystack-ai", "haystack")

from ctxkit_connectors.haystack.compressor import CtxkitDocumentCompressor
from ctxkit_connectors.haystack.fitter import CtxkitPromptFitter
from ctxkit_connectors.haystack.retriever import CtxkitRetriever

__all__ = ["CtxkitDocumentCompressor", "CtxkitPromptFitter", "CtxkitRetriever"]
