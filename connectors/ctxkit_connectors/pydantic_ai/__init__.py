"""Pydantic AI: every model request of an agent inside its budget.

Raises MissingExtra where pydantic-ai is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from ctxkit.errors import MissingExtra

if find_spec("pydantic_ai") is None:
    raise MissingExtra("pydantic-ai-slim", "pydantic-ai")

from ctxkit_connectors.pydantic_ai.capability import ContextBudget, fit_history

__all__ = ["ContextBudget", "fit_history"]
