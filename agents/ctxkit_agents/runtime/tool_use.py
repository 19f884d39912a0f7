"""One use of a tool in a job: kept in the checkpoint, told in the events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.events import Tool
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.tools import FunctionTool

UNKNOWN_EFFECT = (
    "The process stopped while this call was running, and it must not be made twice by itself. Whether it took effect "
    "is not known: find out before you make it again."
)


@dataclass(frozen=True, slots=True)
class Used:
    """What a tool returned, or with `failed` what went wrong. replayed: done by a process before this one."""

    text: str
    failed: bool = False
    replayed: bool = False


async def use_tool(job: Job, tool: FunctionTool, arguments: dict[str, Any], *, step: str = "tool") -> str:
    """What the tool returns, as text. Raises ToolError where it refuses or fails, and as `used_once` says."""
    began = time.monotonic()
    used = await used_once(job, tool, arguments, step)
    tell_use(job, step, tool.name, arguments, used, time.monotonic() - began)
    if used.failed:
        raise ToolError(used.text)
    return used.text


async def used_once(job: Job, tool: FunctionTool, arguments: str | Mapping[str, Any], step: str) -> Used:
    """The tool's use, or the checkpoint's.

    A failure is kept too, so that a run that is resumed goes the same way. What must not happen twice (`repeatable`)
    and was begun by a process that died has failed: nobody knows whether it was done.
    """

    async def make() -> Any:
        try:
            return {"text": await tool.call(arguments), "failed": False}
        except ToolError as error:
            return {"text": str(error), "failed": True}

    asked = [tool.name, arguments if isinstance(arguments, str) else dict(arguments)]
    done = await job.once(step, asked, make, repeatable=tool.repeatable)
    if done.value is None:
        return Used(UNKNOWN_EFFECT, failed=True, replayed=True)
    return Used(done.value["text"], done.value["failed"], done.replayed)


def tell_use(job: Job, step: str, name: str, arguments: Mapping[str, Any], used: Used, took: float) -> None:
    """Puts a use into the events of the run."""
    given = (job.path, step, name, arguments, used.text, used.failed, took, used.replayed)
    job.recorder.add(Tool(*given, seconds=job.recorder.seconds))
