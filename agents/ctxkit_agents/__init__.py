"""Agents: many models, one budget.

Each method is a class named after what it is, with its paper in the docstring. Its constructor is the configuration;
`task(...)` takes the inputs; the task runs:

    outcome = ChainOfAgents(model).task(source, question="Who came late?").run(paid_by=Limits(tokens=50_000))
    print(outcome.text, outcome.spent, outcome.trace, sep="\\n")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit_agents.chain_of_agents import ChainAnswer, ChainOfAgents, ExtractiveWorker
    from ctxkit_agents.runtime.checkpoint import Checkpoint
    from ctxkit_agents.runtime.events import Degraded, Event, Finished, Message, Started, Tokens
    from ctxkit_agents.runtime.job import Job
    from ctxkit_agents.runtime.task import Outcome, Task
    from ctxkit_agents.runtime.tools import FunctionTool
    from ctxkit_agents.runtime.trace import Trace

_ON_USE = {
    "ChainAnswer": "ctxkit_agents.chain_of_agents",
    "ChainOfAgents": "ctxkit_agents.chain_of_agents",
    "ExtractiveWorker": "ctxkit_agents.chain_of_agents",
    "Checkpoint": "ctxkit_agents.runtime.checkpoint",
    "Degraded": "ctxkit_agents.runtime.events",
    "Event": "ctxkit_agents.runtime.events",
    "Finished": "ctxkit_agents.runtime.events",
    "FunctionTool": "ctxkit_agents.runtime.tools",
    "Job": "ctxkit_agents.runtime.job",
    "Message": "ctxkit_agents.runtime.events",
    "Outcome": "ctxkit_agents.runtime.task",
    "Started": "ctxkit_agents.runtime.events",
    "Task": "ctxkit_agents.runtime.task",
    "Tokens": "ctxkit_agents.runtime.events",
    "Trace": "ctxkit_agents.runtime.trace",
}

__all__ = [
    "ChainAnswer",
    "ChainOfAgents",
    "ExtractiveWorker",
    "Checkpoint",
    "Degraded",
    "Event",
    "Finished",
    "FunctionTool",
    "Job",
    "Message",
    "Outcome",
    "Started",
    "Task",
    "Tokens",
    "Trace",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module 'ctxkit_agents' has no attribute {name!r}")
    value = getattr(import_module(_ON_USE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
