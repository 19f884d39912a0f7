"""One use of a tool in a job: kept in the checkpoint, told in the events."""

from __future__ import annotations

import time
from typing import Any

from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.events import Tool
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.tools import FunctionTool


async def use_tool(job: Job, tool: FunctionTool, arguments: dict[str, Any], *, step: str = "tool") -> str:
    """What the tool returns, as text. Raises ToolError where it refuses or fails.

    A failure is kept too, so that a run that is resumed goes the same way. What must not happen twice (`repeatable`)
    and was begun by a process that died is a ToolError: nobody knows whether it was done.
    """
    began = time.monotonic()

    async def use() -> Any:
        try:
            return {"result": await tool.call(arguments), "failed": False}
        except ToolError as error:
            return {"result": str(error), "failed": True}

    done = await job.once(step, [tool.name, arguments], use, repeatable=tool.repeatable)
    unknown = f"`{tool.name}` was begun by a process that died, and may have been done"
    value: dict[str, Any] = done.value if done.value is not None else {"result": unknown, "failed": True}
    job.recorder.add(
        Tool(
            job.path,
            step,
            tool.name,
            arguments,
            value["result"],
            value["failed"],
            time.monotonic() - began,
            done.replayed,
            seconds=job.recorder.seconds,
        )
    )
    if value["failed"]:
        raise ToolError(value["result"])
    return str(value["result"])
