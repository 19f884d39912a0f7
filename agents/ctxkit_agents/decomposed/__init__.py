"""Decomposed prompting: a question is broken into steps, and each step goes to the handler that can do it."""

from ctxkit_agents.decomposed.grammar import Demonstration, Step
from ctxkit_agents.decomposed.handlers import (
    Extract,
    Function,
    Handler,
    PromptedModel,
    Recurse,
    Retrieve,
    SubQuestion,
    SubTask,
)
from ctxkit_agents.decomposed.method import AnsweredStep, Decomposed, Decomposition, HandlerFailed

__all__ = [
    "AnsweredStep",
    "Decomposed",
    "Decomposition",
    "Demonstration",
    "Extract",
    "Function",
    "Handler",
    "HandlerFailed",
    "PromptedModel",
    "Recurse",
    "Retrieve",
    "Step",
    "SubQuestion",
    "SubTask",
]
