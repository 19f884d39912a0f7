"""Information flow: what texts of which label may do, and which labels an answer has."""

from __future__ import annotations

from ctxkit.context.labels import Label
from ctxkit_agents.flow.guard import Flow, check_tool_call, label_of
from ctxkit_agents.flow.markers import harmless, without_markers
from ctxkit_agents.flow.permissive import Labelled, PermissiveFlow

__all__ = [
    "Flow",
    "Label",
    "Labelled",
    "PermissiveFlow",
    "check_tool_call",
    "harmless",
    "label_of",
    "without_markers",
]
