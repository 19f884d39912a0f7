"""The heart: parts and a budget in, a plan out. No torch, no network."""

from ctxkit.context.budget import Budget
from ctxkit.context.decision import Decision
from ctxkit.context.fit import fit
from ctxkit.context.labels import Label
from ctxkit.context.ledger import Run, Ticket
from ctxkit.context.level import Compressor, Handle, JointCompressor, Level, LevelRequest, Need
from ctxkit.context.limits import Amounts, Limits, RunReport
from ctxkit.context.part import (
    KINDS,
    Kind,
    Part,
    SupportsPart,
    instruction,
    memory,
    passage,
    question,
    system,
    tool_call,
    tool_result,
    turn,
)
from ctxkit.context.plan import Plan, PlanDiff
from ctxkit.context.utility import DefaultUtility, Utility

__all__ = [
    "Amounts",
    "KINDS",
    "Budget",
    "Compressor",
    "Decision",
    "DefaultUtility",
    "Handle",
    "JointCompressor",
    "Kind",
    "Label",
    "Level",
    "LevelRequest",
    "Limits",
    "Need",
    "Part",
    "Plan",
    "PlanDiff",
    "Run",
    "RunReport",
    "SupportsPart",
    "Ticket",
    "Utility",
    "fit",
    "instruction",
    "memory",
    "passage",
    "question",
    "system",
    "tool_call",
    "tool_result",
    "turn",
]
