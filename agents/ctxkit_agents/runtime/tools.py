"""Tools: Python functions that a model may call, with the schema that it is told and the checks of what it says."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ctxkit.protocols import Tool as ToolSchema
from ctxkit_agents.errors import ToolError

T = TypeVar("T")


@dataclass(frozen=True)
class FunctionTool:
    """A Python function, sync or async, as a tool.

    function: its annotations are the schema, its docstring is the description, its result goes to the model as text
        (JSON where it is no str). Raising ToolError tells the model what was wrong, in the error's own words.
    timeout_seconds, retries: of one call; an error that is `retryable` is tried again so often.
    repeatable: may run again where a process died while it ran. Say False for what must not happen twice.
    label: see `ctxkit_agents.flow`; "" for none.

    >>> def add(a: int, b: int = 1) -> int:
    ...     "Adds two numbers."
    ...     return a + b
    >>> FunctionTool(add).schema["function"]["parameters"]["required"]
    ['a']
    """

    function: Callable[..., Any]
    name: str = ""
    description: str = ""
    timeout_seconds: float | None = 60.0
    retries: int = 0
    repeatable: bool = True
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.function.__name__)
        object.__setattr__(self, "description", self.description or inspect.getdoc(self.function) or "")
        if self.retries < 0 or (self.timeout_seconds is not None and self.timeout_seconds <= 0):
            raise ValueError(
                "`retries` must be 0 or more and `timeout_seconds` above 0, "
                f"got {self.retries!r} and {self.timeout_seconds!r}"
            )

    @cached_property
    def schema(self) -> ToolSchema:
        """As OpenAI's chat API writes it."""
        parameters = self._arguments.model_json_schema()
        parameters.pop("title", None)
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for one in inspect.signature(self.function, eval_str=True).parameters.values():
            if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY):
                raise ValueError(f"`{self.name}` cannot be a tool: its parameter {one} has no name a model could give")
            kind = Any if one.annotation is one.empty else one.annotation
            fields[one.name] = (kind, ... if one.default is one.empty else one.default)
        return create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)

    def checked(self, arguments: str | Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function takes them. Raises ToolError for broken JSON, unknown and wrong arguments."""
        try:
            given = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        except json.JSONDecodeError as error:
            raise ToolError(f"the arguments of `{self.name}` are not JSON: {error}. Send one JSON object.") from error
        if not isinstance(given, Mapping):
            raise ToolError(f"the arguments of `{self.name}` must be a JSON object, got {type(given).__name__}")
        try:
            model = self._arguments.model_validate(dict(given))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise ToolError(f"`{self.name}` cannot be called so: {wrong}") from error
        return {name: getattr(model, name) for name in type(model).model_fields}

    async def call(self, arguments: str | Mapping[str, Any]) -> str:
        """The result as text. Raises ToolError for wrong arguments, a failure and a time-out; never anything else."""
        given = self.checked(arguments)
        for attempt in range(self.retries + 1):
            try:
                return _as_text(await self._once(given))
            except ToolError:
                raise
            except (Exception, SystemExit) as error:
                if attempt == self.retries or not getattr(error, "retryable", False):
                    raise ToolError(f"`{self.name}` failed: {type(error).__name__}: {error}") from error
        raise AssertionError("unreachable")

    async def _once(self, given: dict[str, Any]) -> Any:
        limit = asyncio.timeout(self.timeout_seconds)
        try:
            async with limit:
                if inspect.iscoroutinefunction(self.function):
                    return await self.function(**given)
                result = await in_thread(partial(self.function, **given))
                return await result if isinstance(result, Awaitable) else result
        except TimeoutError as error:
            if not limit.expired():  # the function's own
                raise
            raise ToolError(f"`{self.name}` did not answer within {self.timeout_seconds:g} seconds") from error


def as_tools(tools: Sequence[FunctionTool | Callable[..., Any]]) -> dict[str, FunctionTool]:
    """Tools by name; functions become tools. Raises ValueError where two have one name."""
    found: dict[str, FunctionTool] = {}
    for one in tools:
        tool = one if isinstance(one, FunctionTool) else FunctionTool(one)
        if tool.name in found:
            raise ValueError(f"two tools are called {tool.name!r}; give one another `name`")
        found[tool.name] = tool
    return found


async def in_thread(function: Callable[[], T]) -> T:
    """Its result, from a thread of its own. One that hangs holds up nothing: not other tools, nor the end of a run."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    came: asyncio.Future[T] = loop.create_future()

    def hand(result: T | None, error: BaseException | None) -> None:
        if came.done():
            return  # nobody waits for it any more
        if error is None:
            came.set_result(cast(T, result))
        else:  # a Future takes no StopIteration
            came.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(function)
        except BaseException as raised:  # raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(hand, result, error)

    threading.Thread(target=work, name="ctxkit-tool", daemon=True).start()
    return await came


def _as_text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
