"""The heart: parts and a budget in, a plan out. No torch, no network."""

from ctxkit.context.budget import Budget
from ctxkit.context.fit import fit
from ctxkit.context.level import Compressor, Handle, Level
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
from ctxkit.context.plan import Decision, Plan, PlanDiff

__all__ = [
    "KINDS",
    "Budget",
    "Compressor",
    "Decision",
    "Handle",
    "Kind",
    "Level",
    "Part",
    "Plan",
    "PlanDiff",
    "SupportsPart",
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
