"""Events: what happened in a run, in order. Each is a value that goes into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ctxkit.context import Amounts


@dataclass(frozen=True, slots=True)
class Event:
    """path: the job it happened in, "/" between a job and those below it. seconds: since the run began."""

    path: str
    seconds: float = field(kw_only=True)

    @property
    def type(self) -> str:
        """ "started", "message", "tokens", "tool", "degraded" or "finished"."""
        return type(self).__name__.lower()

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A job has begun. method: what kind of job it is."""

    method: str


@dataclass(frozen=True, slots=True)
class Tokens(Event):
    """A piece of an answer, as it comes. step: which call of the job."""

    step: str
    text: str


@dataclass(frozen=True, slots=True)
class Message(Event):
    """A model has answered.

    prompt: the prompt's last message, shortened. tool_calls: in OpenAI's form. took: seconds of the call.
    replayed: taken from the checkpoint, so not paid again.
    """

    step: str
    model: str
    prompt: str
    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    took: float
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Tool(Event):
    """A tool was used. result: what it returned, as the model sees it; with `failed` what went wrong."""

    step: str
    name: str
    arguments: Mapping[str, Any]
    result: str
    failed: bool
    took: float
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Degraded(Event):
    """Something was done worse than asked for, and goes on. what: one sentence."""

    what: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """A job has ended. spent: by it and everything below it. error: why it failed, "" if it did not."""

    spent: Amounts
    took: float
    error: str = ""
