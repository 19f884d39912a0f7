"""Errors of agents.

AgentError(CtxkitError)
├── CallTimeout           a model or a tool did not answer in time
├── AnswerMalformed       a model did not answer in the form that was asked for, also when asked again
├── WorkersFailed         too many of a chain's workers failed
├── NoAnswer              of several agents none gave an answer
├── StepsExhausted        the limit of steps was reached before there was an answer
├── ToolError             a tool refused its arguments or failed; usually told to the model, not raised
├── FlowBlocked           a text's label forbids what was to be done with it
├── CapabilityMissing     the model cannot do what the method needs (say, `embeds`)
├── TokenizerMismatch     two models, or a model and a message, do not number their tokens alike
└── CheckpointError       the checkpoint cannot be used
    ├── CheckpointMismatch   it is of another run: a step was asked something else
    └── CheckpointLocked     another process is using it
"""

from __future__ import annotations

from ctxkit.context import Label
from ctxkit.errors import CtxkitError


class AgentError(CtxkitError):
    """An agent cannot go on."""


class CallTimeout(AgentError):
    """A model or a tool did not answer in time."""

    retryable = True


class AnswerMalformed(AgentError):
    """A model did not answer in the form that was asked for, also when asked again. `answer` is what it said."""

    def __init__(self, message: str, *, answer: str = "") -> None:
        super().__init__(message)
        self.answer = answer


class WorkersFailed(AgentError):
    """Too many of a chain's workers failed. `chunks` are the numbers of what they should have read."""

    def __init__(self, message: str, *, chunks: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.chunks = chunks


class NoAnswer(AgentError):
    """Of several agents none gave an answer. The message says of each why."""


class StepsExhausted(AgentError):
    """The limit of steps was reached before there was an answer."""


class ToolError(AgentError):
    """A tool refused its arguments or failed; an agent tells the model, which may do better."""


class FlowBlocked(AgentError):
    """A text's label forbids what was to be done with it. The message says which text, why, and what to do.

    Attributes:
        step: what was to be done: "role", "tool NAME" or "sink NAME".
        part_ids: the parts whose labels forbid it.
        label: of all of them together. allowed: the most that may do it.
    """

    def __init__(self, message: str, *, step: str, part_ids: tuple[str, ...], label: Label, allowed: Label) -> None:
        super().__init__(message)
        self.step = step
        self.part_ids = part_ids
        self.label = label
        self.allowed = allowed


class CapabilityMissing(AgentError):
    """The model cannot do what the method needs. `capability` names it, as `Model.capabilities` does."""

    def __init__(self, message: str, *, capability: str) -> None:
        super().__init__(message)
        self.capability = capability


class TokenizerMismatch(AgentError):
    """Two models, or a model and a message, do not number their tokens alike."""


class CheckpointError(AgentError):
    """A checkpoint cannot be opened, read or written."""


class CheckpointMismatch(CheckpointError):
    """The checkpoint is of another run: at the same step something else was asked."""


class CheckpointLocked(CheckpointError):
    """Another process is using the checkpoint."""

    retryable = True
