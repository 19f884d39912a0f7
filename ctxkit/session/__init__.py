"""Conversations: fit a list of chat messages, keep a prompt's beginning, and what is known of a user or a topic."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit.session.cache import CacheReport
    from ctxkit.session.messages import fit_messages
    from ctxkit.session.prices import CachePrices, break_even_turns
    from ctxkit.session.profile import Profile, ProfileMemory
    from ctxkit.session.session import Session
    from ctxkit.session.store import MemoryOriginals, Originals, SqliteOriginals

_LAZY = {
    "CachePrices": "ctxkit.session.prices",
    "CacheReport": "ctxkit.session.cache",
    "MemoryOriginals": "ctxkit.session.store",
    "Originals": "ctxkit.session.store",
    "Profile": "ctxkit.session.profile",
    "ProfileMemory": "ctxkit.session.profile",
    "Session": "ctxkit.session.session",
    "SqliteOriginals": "ctxkit.session.store",
    "break_even_turns": "ctxkit.session.prices",
    "fit_messages": "ctxkit.session.messages",
}

__all__ = [
    "CachePrices",
    "CacheReport",
    "MemoryOriginals",
    "Originals",
    "Profile",
    "ProfileMemory",
    "Session",
    "SqliteOriginals",
    "break_even_turns",
    "fit_messages",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ctxkit.session' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
