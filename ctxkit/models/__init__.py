"""Models: a local one through transformers, a remote one through any OpenAI-compatible server.

Importing this package loads neither torch nor an HTTP client; `LocalModel` and `RemoteModel` do, when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ctxkit.models.catalog import CATALOG, DEFAULT_MODEL, CatalogEntry
from ctxkit.models.prepare import ModelInfo, available, prepare, resolve

if TYPE_CHECKING:
    from ctxkit.models.local import LocalModel
    from ctxkit.models.remote import RemoteModel
    from ctxkit.models.replicas import Replicas

__all__ = [
    "CATALOG",
    "DEFAULT_MODEL",
    "CatalogEntry",
    "LocalModel",
    "ModelInfo",
    "RemoteModel",
    "Replicas",
    "available",
    "prepare",
    "resolve",
]

_LAZY = {
    "LocalModel": "ctxkit.models.local",
    "RemoteModel": "ctxkit.models.remote",
    "Replicas": "ctxkit.models.replicas",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
