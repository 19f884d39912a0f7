"""ctxkit serve: an OpenAI-compatible endpoint over a model that fits what it is sent. Needs the extra `serve`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit.server.app import create_app
    from ctxkit.server.options import ServeOptions
    from ctxkit.server.service import Service

_ON_USE = {
    "ServeOptions": "ctxkit.server.options",
    "Service": "ctxkit.server.service",
    "create_app": "ctxkit.server.app",
}

__all__ = ["ServeOptions", "Service", "create_app"]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module 'ctxkit.server' has no attribute {name!r}")
    return getattr(import_module(_ON_USE[name]), name)
