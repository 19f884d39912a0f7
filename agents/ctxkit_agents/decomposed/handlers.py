"""Who answers sub-questions: a prompted model, a pattern, a Python function, an index, or the decomposer again.

A handler is anything with a `description` and `answer(job, asked)`; what it answers is a JSON value. Raising ToolError
tells the decomposer what was wrong.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ctxkit.context.part import Part, passage, question, system
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.decomposed.grammar import as_json
from ctxkit_agents.decomposed.prompts import Demonstrated
from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.forms import Malformed, ask_in_form
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.runtime.tool_use import use_tool
from ctxkit_agents.runtime.tools import FunctionTool

if TYPE_CHECKING:
    from ctxkit.retrieval.searchable import Searchable

Form = Literal["any", "json", "text"]


async def _nobody(job: Job, asked: SubQuestion) -> Any:
    raise ToolError("nobody decomposes here, so there is nothing to come back to")


@dataclass(frozen=True)
class SubQuestion:
    """What a handler is asked.

    text: without references. passages: what the whole task was given to read.
    above: the questions that it is part of, the first one first.
    decompose: the decomposer that asks; it answers a question in the job that it is given.
    """

    text: str
    passages: tuple[Part, ...] = ()
    above: tuple[str, ...] = ()
    decompose: Callable[[Job, SubQuestion], Awaitable[Any]] = _nobody


@runtime_checkable
class Handler(Protocol):
    """Answers sub-questions. description: one line for the decomposer, "" for none."""

    @property
    def description(self) -> str: ...

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        """A JSON value. Raises ToolError for what the decomposer could ask better."""
        ...


@dataclass(frozen=True)
class PromptedModel:
    """A model with instructions and demonstrations of its own; it reads the task's passages.

    demonstrations: (question, answer) pairs. Where the prompt does not fit, the last ones go first; then passages.
    form: "json" must be JSON, "text" is taken as it is, "any" is JSON where it is JSON.
    timeout_seconds: of one call. An answer that is empty, cut off or in another form is asked for once more, then
    AnswerMalformed; a "text" that is cut off is taken, and the outcome says so. An error of the model ends the run: its
    connection has retried what can be retried.
    """

    model: Model
    instructions: str = "Answer the question, as short as you can."
    demonstrations: Sequence[tuple[str, Any]] = ()
    form: Form = "any"
    description: str = ""
    sampling: Sampling = Sampling(max_tokens=128)
    timeout_seconds: float | None = None

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        form = {"json": " Answer with JSON only.", "any": "", "text": ""}[self.form]
        shown = [f"Q: {query}\nA: {as_json(answer)}" for query, answer in self.demonstrations]
        after = [*asked.passages, question(asked.text, id="question")]
        prompt = Demonstrated(job, self.model, self.sampling, shown, [system(self.instructions + form)], after)
        return await ask_in_form(
            job,
            self.model,
            prompt.plan,
            self._read,
            self.sampling,
            step="answer",
            timeout_seconds=self.timeout_seconds,
            or_cut=self.form == "text",
        )

    def _read(self, text: str) -> Any:
        if self.form == "text":
            return text
        try:
            return json.loads(text.removeprefix("A:"))
        except json.JSONDecodeError as error:
            if self.form == "json":
                raise Malformed(f"it is not JSON: {error}") from error
            return text.removeprefix("A:").strip()


@dataclass(frozen=True)
class Extract:
    r"""A pattern that finds the answer in the sub-question itself: the decomposer has thought, and this reads the end.

    pattern: its first group is the answer, JSON where it is JSON; of several places the last counts.

    >>> Extract().read('Half of 4 is 2. The first half of "a, b, c, d" is "a, b".')
    'a, b'
    """

    pattern: str = r"(\"[^\"]*\"|\[[^\[\]]*\])"
    description: str = "takes the answer out of the sub-question: its last quoted text or list"

    def __post_init__(self) -> None:
        if re.compile(self.pattern).groups != 1:
            raise ValueError(f"`pattern` must have one group, the answer, got {self.pattern!r}")

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        return self.read(asked.text)

    def read(self, text: str) -> Any:
        """The answer in a text. Raises ToolError where there is none."""
        found = re.findall(self.pattern, text)
        if not found:
            raise ToolError(f"there is no answer in {text[:80]!r}; it must match {self.pattern}")
        return _json_or_text(found[-1])


@dataclass(frozen=True)
class Function:
    """A Python function of the sub-question's text: symbolic, exact, free of tokens.

    function: sync or async, returns a JSON value; or a FunctionTool with one parameter, whose time-out, retries and
    `repeatable` hold. What it raises is told to the decomposer.
    """

    function: Callable[[str], Any] | FunctionTool
    description: str = ""

    def __post_init__(self) -> None:
        if len(self._tool.schema["function"]["parameters"].get("properties", {})) != 1:
            raise ValueError(f"a handler's function takes one argument, the sub-question; `{self._tool.name}` does not")
        object.__setattr__(self, "description", self.description or self._tool.description)

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        (parameter,) = self._tool.schema["function"]["parameters"]["properties"]
        return _json_or_text(await use_tool(job, self._tool, {parameter: asked.text}))

    @cached_property
    def _tool(self) -> FunctionTool:
        if isinstance(self.function, FunctionTool):
            return self.function
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return FunctionTool(_as_json(self.function), name=name, description=inspect.getdoc(self.function) or name)


@dataclass(frozen=True)
class Retrieve:
    """The texts that an index finds for the sub-question: the k best, as a list."""

    index: Searchable
    k: int = 5
    description: str = "finds texts about the sub-question; answers with a list of them"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"`k` must be at least 1, got {self.k!r}")

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        def search(query: str) -> list[str]:
            return [hit.chunk.text for hit in self.index.search(query, self.k)]

        return json.loads(await use_tool(job, FunctionTool(search), {"query": asked.text}, step="search"))


@dataclass(frozen=True)
class Recurse:
    """The decomposer again, for a question of the same kind that is smaller."""

    description: str = "solves a smaller question of the same kind"

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        if asked.text in asked.above:
            raise ToolError(f"{asked.text[:80]!r} is what is being answered already; ask for a smaller part of it")
        return await asked.decompose(job, asked)


@dataclass(frozen=True)
class SubTask:
    """A task of any method, made for the sub-question; its answer is the text of what the task comes to.

    As in `SubTask(lambda query: ChainOfAgents(model).task(report, question=query))`.
    """

    make: Callable[[str], Task[Any]]
    description: str = ""

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        task = self.make(asked.text)
        value = await job.spawn(task, name=task.name)
        return str(getattr(value, "text", value))


def as_handler(given: Handler | FunctionTool | Callable[[str], Any]) -> Handler:
    """A handler as it is; functions and tools become `Function`."""
    return given if isinstance(given, Handler) else Function(given)


def as_passage(given: Any) -> Part:
    """A text, a part or a search hit as a part."""
    part: Part = passage(given) if isinstance(given, str) else given.as_part()
    return part


def _as_json(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function with its result as JSON, so that the text "12" and the number 12 stay apart."""
    if inspect.iscoroutinefunction(function):

        async def later(question: str) -> str:
            return as_json(await function(question))

        return later
    return lambda question: as_json(function(question))


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
