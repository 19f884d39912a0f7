"""ctxkit fits the right context into any model's window, and proves it.

    import ctxkit

    plan = ctxkit.fit(
        [ctxkit.system("Answer from the passages."), *index.search(asked, k=20), ctxkit.question(asked)],
        budget=ctxkit.Budget(window_tokens=4096, reserve_tokens=256),
        counter=model,
    )

What needs torch, faiss or a network is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ctxkit import errors
from ctxkit.context import (
    Budget,
    Decision,
    Handle,
    Label,
    Level,
    Limits,
    Part,
    Plan,
    fit,
    instruction,
    memory,
    passage,
    question,
    system,
    tool_call,
    tool_result,
    turn,
)
from ctxkit.errors import BudgetInfeasible, CtxkitError
from ctxkit.protocols import Reply, Sampling

if TYPE_CHECKING:
    from ctxkit.models.local import LocalModel
    from ctxkit.models.remote import RemoteModel
    from ctxkit.pipeline import Answer, Pipeline
    from ctxkit.retrieval import Hit, Index
    from ctxkit.session import Session, fit_messages
    from ctxkit.tokens import EstimatingCounter, OpenAIChatCounter, TemplateCounter

__version__ = "0.1.0"

_ON_USE = {
    "Answer": "ctxkit.pipeline",
    "EstimatingCounter": "ctxkit.tokens",
    "Hit": "ctxkit.retrieval",
    "Index": "ctxkit.retrieval",
    "LocalModel": "ctxkit.models.local",
    "OpenAIChatCounter": "ctxkit.tokens",
    "Pipeline": "ctxkit.pipeline",
    "RemoteModel": "ctxkit.models.remote",
    "Session": "ctxkit.session",
    "TemplateCounter": "ctxkit.tokens",
    "fit_messages": "ctxkit.session",
}

__all__ = [
    "Answer",
    "Budget",
    "BudgetInfeasible",
    "CtxkitError",
    "Decision",
    "EstimatingCounter",
    "Handle",
    "Hit",
    "Index",
    "Label",
    "Level",
    "Limits",
    "LocalModel",
    "OpenAIChatCounter",
    "Part",
    "Pipeline",
    "Plan",
    "RemoteModel",
    "Reply",
    "Sampling",
    "Session",
    "TemplateCounter",
    "errors",
    "fit",
    "fit_messages",
    "instruction",
    "memory",
    "passage",
    "question",
    "system",
    "tool_call",
    "tool_result",
    "turn",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module 'ctxkit' has no attribute {name!r}")
    value = getattr(import_module(_ON_USE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
