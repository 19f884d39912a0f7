"""Late interaction over token vectors on a CPU: an engine that is built, searched, saved and mapped back."""

from __future__ import annotations

from ctxkit.retrieval.multivector.engine import Found, MultiVectorEngine
from ctxkit.retrieval.multivector.options import BuildOptions, SearchOptions

__all__ = ["BuildOptions", "Found", "MultiVectorEngine", "SearchOptions"]
