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
    from ctxkit_agents.agent import Agent, AgentAnswer
    from ctxkit_agents.attribution import Attribution, LeaveOneOut, with_influence
    from ctxkit_agents.batch_prompt import BatchPrompt, BatchResult
    from ctxkit_agents.cascade import Calibrated, Cascade, CascadeAnswer
    from ctxkit_agents.chain_of_agents import ChainAnswer, ChainOfAgents, ExtractiveWorker
    from ctxkit_agents.collaboration.answer import CoWritten
    from ctxkit_agents.collaboration.token_collaboration import TokenCollaboration
    from ctxkit_agents.debate.belief import Belief
    from ctxkit_agents.debate.cipher_debate import CipherDebate
    from ctxkit_agents.debate.text_debate import TextDebate
    from ctxkit_agents.decomposed import Decomposed, Decomposition
    from ctxkit_agents.deferral import CascadeExample, ChowMean, ChowQuantile, ChowSum, CostQualityCurve, FittedRule
    from ctxkit_agents.demonstrations import Demonstrations, Example, select_to_annotate
    from ctxkit_agents.flow import Flow, PermissiveFlow, check_tool_call
    from ctxkit_agents.jury import Jury, JuryResult
    from ctxkit_agents.nudging import NudgedAnswer, Nudging
    from ctxkit_agents.personal.context import PersonalContext
    from ctxkit_agents.personal.source_planner import Source, SourcedAnswer, SourcePlanner
    from ctxkit_agents.personal.standing_instructions import StandingInstructions
    from ctxkit_agents.planner_caller_summarizer import Conclusion, PlannerCallerSummarizer
    from ctxkit_agents.reagent import ReAGent, TokenImportance
    from ctxkit_agents.runtime.checkpoint import Checkpoint
    from ctxkit_agents.runtime.events import Degraded, Event, Finished, Message, Started, Tokens
    from ctxkit_agents.runtime.job import Job
    from ctxkit_agents.runtime.task import Outcome, Task
    from ctxkit_agents.runtime.tools import FunctionTool
    from ctxkit_agents.runtime.trace import Trace
    from ctxkit_agents.sensitivity import PromptSensitivity, Sensitivity, prompt_sensitivity
    from ctxkit_agents.task_tool import TaskTool
    from ctxkit_agents.think_plan_execute import Response, ThinkPlanExecute
    from ctxkit_agents.tool_use import ToolUse
    from ctxkit_agents.vote import Vote, VoteResult

_ON_USE = {
    "Agent": "ctxkit_agents.agent",
    "AgentAnswer": "ctxkit_agents.agent",
    "Attribution": "ctxkit_agents.attribution",
    "BatchPrompt": "ctxkit_agents.batch_prompt",
    "BatchResult": "ctxkit_agents.batch_prompt",
    "Belief": "ctxkit_agents.debate.belief",
    "Calibrated": "ctxkit_agents.cascade",
    "Cascade": "ctxkit_agents.cascade",
    "CascadeAnswer": "ctxkit_agents.cascade",
    "CascadeExample": "ctxkit_agents.deferral",
    "ChainAnswer": "ctxkit_agents.chain_of_agents",
    "ChainOfAgents": "ctxkit_agents.chain_of_agents",
    "Checkpoint": "ctxkit_agents.runtime.checkpoint",
    "ChowMean": "ctxkit_agents.deferral",
    "ChowQuantile": "ctxkit_agents.deferral",
    "ChowSum": "ctxkit_agents.deferral",
    "CipherDebate": "ctxkit_agents.debate.cipher_debate",
    "CoWritten": "ctxkit_agents.collaboration.answer",
    "Conclusion": "ctxkit_agents.planner_caller_summarizer",
    "CostQualityCurve": "ctxkit_agents.deferral",
    "Decomposed": "ctxkit_agents.decomposed",
    "Decomposition": "ctxkit_agents.decomposed",
    "Degraded": "ctxkit_agents.runtime.events",
    "Demonstrations": "ctxkit_agents.demonstrations",
    "Event": "ctxkit_agents.runtime.events",
    "Example": "ctxkit_agents.demonstrations",
    "ExtractiveWorker": "ctxkit_agents.chain_of_agents",
    "Finished": "ctxkit_agents.runtime.events",
    "FittedRule": "ctxkit_agents.deferral",
    "Flow": "ctxkit_agents.flow",
    "FunctionTool": "ctxkit_agents.runtime.tools",
    "Job": "ctxkit_agents.runtime.job",
    "Jury": "ctxkit_agents.jury",
    "JuryResult": "ctxkit_agents.jury",
    "LeaveOneOut": "ctxkit_agents.attribution",
    "Message": "ctxkit_agents.runtime.events",
    "NudgedAnswer": "ctxkit_agents.nudging",
    "Nudging": "ctxkit_agents.nudging",
    "Outcome": "ctxkit_agents.runtime.task",
    "PermissiveFlow": "ctxkit_agents.flow",
    "PersonalContext": "ctxkit_agents.personal.context",
    "PlannerCallerSummarizer": "ctxkit_agents.planner_caller_summarizer",
    "PromptSensitivity": "ctxkit_agents.sensitivity",
    "ReAGent": "ctxkit_agents.reagent",
    "Response": "ctxkit_agents.think_plan_execute",
    "Sensitivity": "ctxkit_agents.sensitivity",
    "Source": "ctxkit_agents.personal.source_planner",
    "SourcePlanner": "ctxkit_agents.personal.source_planner",
    "SourcedAnswer": "ctxkit_agents.personal.source_planner",
    "StandingInstructions": "ctxkit_agents.personal.standing_instructions",
    "Started": "ctxkit_agents.runtime.events",
    "Task": "ctxkit_agents.runtime.task",
    "TaskTool": "ctxkit_agents.task_tool",
    "TextDebate": "ctxkit_agents.debate.text_debate",
    "ThinkPlanExecute": "ctxkit_agents.think_plan_execute",
    "TokenCollaboration": "ctxkit_agents.collaboration.token_collaboration",
    "TokenImportance": "ctxkit_agents.reagent",
    "Tokens": "ctxkit_agents.runtime.events",
    "ToolUse": "ctxkit_agents.tool_use",
    "Trace": "ctxkit_agents.runtime.trace",
    "Vote": "ctxkit_agents.vote",
    "VoteResult": "ctxkit_agents.vote",
    "check_tool_call": "ctxkit_agents.flow",
    "prompt_sensitivity": "ctxkit_agents.sensitivity",
    "select_to_annotate": "ctxkit_agents.demonstrations",
    "with_influence": "ctxkit_agents.attribution",
}

__all__ = [
    "Agent",
    "AgentAnswer",
    "Attribution",
    "BatchPrompt",
    "BatchResult",
    "Belief",
    "Calibrated",
    "Cascade",
    "CascadeAnswer",
    "CascadeExample",
    "ChainAnswer",
    "ChainOfAgents",
    "Checkpoint",
    "ChowMean",
    "ChowQuantile",
    "ChowSum",
    "CipherDebate",
    "CoWritten",
    "Conclusion",
    "CostQualityCurve",
    "Decomposed",
    "Decomposition",
    "Degraded",
    "Demonstrations",
    "Event",
    "Example",
    "ExtractiveWorker",
    "Finished",
    "FittedRule",
    "Flow",
    "FunctionTool",
    "Job",
    "Jury",
    "JuryResult",
    "LeaveOneOut",
    "Message",
    "NudgedAnswer",
    "Nudging",
    "Outcome",
    "PermissiveFlow",
    "PersonalContext",
    "PlannerCallerSummarizer",
    "PromptSensitivity",
    "ReAGent",
    "Response",
    "Sensitivity",
    "Source",
    "SourcePlanner",
    "SourcedAnswer",
    "StandingInstructions",
    "Started",
    "Task",
    "TaskTool",
    "TextDebate",
    "ThinkPlanExecute",
    "TokenCollaboration",
    "TokenImportance",
    "Tokens",
    "ToolUse",
    "Trace",
    "Vote",
    "VoteResult",
    "check_tool_call",
    "prompt_sensitivity",
    "select_to_annotate",
    "with_influence",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module 'ctxkit_agents' has no attribute {name!r}")
    value = getattr(import_module(_ON_USE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
