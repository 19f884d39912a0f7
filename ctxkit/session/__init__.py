"""Conversations: fit a list of chat messages, and keep a prompt's beginning from one call to the next."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit.session.messages import fit_messages

_LAZY = {"fit_messages": "ctxkit.session.messages"}

__all__ = ["fit_messages"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ctxkit.session' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
