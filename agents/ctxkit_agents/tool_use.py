"""Using tools: one call of a model, run once, answered in words whatever happens."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctxkit.protocols import Reply
from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.tool_use import Used, tell_use, used_once
from ctxkit_agents.runtime.tools import FunctionTool
from ctxkit_agents.task_tool import TaskTool


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a model asked for. arguments: as the model wrote them, a JSON object if it did it right."""

    id: str
    name: str
    arguments: str

    @property
    def canonical(self) -> str:
        """Equal for arguments that mean the same."""
        try:
            return json.dumps(json.loads(self.arguments), sort_keys=True)
        except (json.JSONDecodeError, RecursionError):
            return self.arguments

    def to_dict(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call and what came of it.

    step: which answer of the model asked for it, from 1. result: the text that the model is told, whole. failed:
    whether the text says what went wrong. replayed: it was done by a process before this one.
    """

    step: int
    call: Call
    result: str
    failed: bool = False
    replayed: bool = field(default=False, compare=False)

    def to_message(self) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": self.call.id, "content": self.result}


def calls_of(reply: Reply, step: int) -> tuple[Call, ...]:
    """The calls of a reply, each with an id of its own and its arguments as text, however they were written."""
    calls: list[Call] = []
    for place, given in enumerate(reply.tool_calls):
        function = given.get("function")
        body: Mapping[str, Any] = function if isinstance(function, Mapping) else {}
        arguments = body.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
        known = {call.id for call in calls}
        call_id = str(given.get("id") or "")
        calls.append(Call(call_id if call_id and call_id not in known else f"call-{step}-{place}", _name(body), text))
    return tuple(calls)


def _name(body: Mapping[str, Any]) -> str:
    return str(body.get("name") or "")


async def use(job: Job, tools: Mapping[str, FunctionTool], call: Call, step: int, place: int) -> ToolUse:
    """Makes the call, or takes its result from the checkpoint; what went wrong becomes the result.

    place: of the call in the model's answer. Raises only what ends the run: CheckpointError, cancellation.
    """
    began, name = time.monotonic(), f"tool {step}.{place + 1}"
    try:
        text, failed, replayed = await _made(job, _known(tools, call), call, name)
    except ToolError as error:
        text, failed, replayed = f"Error: {error}", True, False
    used = ToolUse(step, call, text, failed, replayed)
    say(job, used, name, time.monotonic() - began)
    return used


def say(job: Job, used: ToolUse, name: str, took: float) -> None:
    """Puts the use into the events of the run. name: of its step."""
    told = Used(used.result, used.failed, used.replayed)
    tell_use(job, name, used.call.name, _arguments(used.call), told, took)


def _known(tools: Mapping[str, FunctionTool], call: Call) -> FunctionTool:
    if call.name not in tools:
        named = ", ".join(tools) or "none"
        raise ToolError(f"there is no tool {call.name!r}. The tools are: {named}.")
    return tools[call.name]


async def _made(job: Job, tool: FunctionTool, call: Call, step: str) -> tuple[str, bool, bool]:
    """(text, failed, replayed). Raises ToolError for arguments that the tool does not take: nothing was begun then."""
    tool.checked(call.arguments)
    if isinstance(tool, TaskTool):
        return await tool.use(job, call.arguments, step, [call.name, call.arguments])
    used = await used_once(job, tool, call.arguments, step)
    return f"Error: {used.text}" if used.failed else used.text, used.failed, used.replayed


def _arguments(call: Call) -> Mapping[str, Any]:
    try:
        given = json.loads(call.arguments or "{}")
    except (json.JSONDecodeError, RecursionError):
        given = None
    return given if isinstance(given, dict) else {"arguments": call.arguments}
