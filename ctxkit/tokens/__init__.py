"""Counting: what a prompt really costs, in the tokens of the model that reads it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit.tokens.estimate import EstimatingCounter
    from ctxkit.tokens.least import at_least
    from ctxkit.tokens.media import (
        AnthropicImages,
        AnthropicPatches,
        FilePages,
        FixedCost,
        MediaRule,
        MediaRules,
        OpenAIPatches,
        OpenAITiles,
        QwenVL,
    )
    from ctxkit.tokens.messages import messages_from_dicts
    from ctxkit.tokens.openai_chat import OpenAIChatCounter
    from ctxkit.tokens.template import TemplateCounter
    from ctxkit.tokens.truncation import truncate

_ON_USE = {
    "AnthropicImages": "media",
    "AnthropicPatches": "media",
    "EstimatingCounter": "estimate",
    "FilePages": "media",
    "FixedCost": "media",
    "MediaRule": "media",
    "MediaRules": "media",
    "OpenAIChatCounter": "openai_chat",
    "OpenAIPatches": "media",
    "OpenAITiles": "media",
    "QwenVL": "media",
    "TemplateCounter": "template",
    "at_least": "least",
    "messages_from_dicts": "messages",
    "truncate": "truncation",
}

__all__ = [
    "AnthropicImages",
    "AnthropicPatches",
    "EstimatingCounter",
    "FilePages",
    "FixedCost",
    "MediaRule",
    "MediaRules",
    "OpenAIChatCounter",
    "OpenAIPatches",
    "OpenAITiles",
    "QwenVL",
    "TemplateCounter",
    "at_least",
    "messages_from_dicts",
    "truncate",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
