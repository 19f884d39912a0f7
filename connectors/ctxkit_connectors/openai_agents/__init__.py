"""OpenAI's Agents SDK: every model call of a run inside its budget, and a session in ctxkit's store.

Raises MissingExtra where openai-agents is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from ctxkit.errors import MissingExtra

if (_found := find_spec("agents")) is None or _found.origin is None:  # a folder of that name is no package
    raise MissingExtra("openai-agents", "openai-agents")

from ctxkit_connectors.openai_agents.budget_filter import ContextBudgetFilter
from ctxkit_connectors.openai_agents.session import StoredSession

__all__ = ["ContextBudgetFilter", "StoredSession"]
