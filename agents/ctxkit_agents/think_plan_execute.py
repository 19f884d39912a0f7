"""ThinkPlanExecute: what the user needs, which sources to ask for it, and the reply made of what they gave."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, TypeVar, cast

from ctxkit.context import Plan
from ctxkit.context.part import Part, SupportsPart, passage, question, system
from ctxkit.errors import BudgetClosed, BudgetOverdrawn, CtxkitError
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.decomposed.grammar import as_json, references, with_references
from ctxkit_agents.decomposed.handlers import Handler, SubQuestion, as_handler
from ctxkit_agents.errors import CheckpointError
from ctxkit_agents.runtime.forms import Malformed, ask_in_form
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.reading import json_values
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.runtime.tools import FunctionTool

T = TypeVar("T")

_THINK = (
    "Say in two sentences what the user wants, how they seem to feel about it, and what a good reply needs to know."
)
_PLAN = """You plan which tools to ask before the reply is written. Answer with a JSON list, in the order of the calls:
[{"tool": "name", "query": "what it is asked"}]
A query may hold the result of an earlier call as #1, #2, ... Calls that hold none are made at once.
Answer [] if nothing needs to be asked. Tools:"""
_EXECUTE = (
    "Write the reply to the user. Use what the tools gave, as far as it helps, and what is known of the user's needs:"
)

_QUERY_CHARS = 120  # of a constrained plan
_LINE = re.compile(r"\s*\d+[.)]\s*\[?(?P<tool>[\w-]+)\]?(?:\s*:\s*|\s+)(?P<query>\S.*)")


class State(Enum):
    """THINK -> PLAN -> CALL -> EXECUTE -> DONE, and from PLAN to EXECUTE where nothing is to be asked."""

    THINK = "the thinker says what the user needs"
    PLAN = "the planner says which tools to ask for what"
    CALL = "the tools answer, at the same time where they do not need each other"
    EXECUTE = "the executor writes the reply"
    DONE = "there is a reply"


@dataclass(frozen=True, slots=True)
class Call:
    """query: as planned, with its references. result: what the tool gave; "" with `missing`, which says why not."""

    tool: str
    query: str
    result: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Response:
    """text: the reply. thought: the user's state and intent. calls: as planned, dropped ones included."""

    text: str
    thought: str
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class ThinkPlanExecute:
    """Think, plan, execute (TPE, arXiv 2309.16090): a dialogue's reply from conceptual tools, sources and strategies.

    model: the thinker; planner and executor where they have no model of their own. tools: by name; functions of the
        query, or any handler of `ctxkit_agents.decomposed`: an index, a prompted model, a whole task.
    max_calls: of a plan; the rest is left out. at_once: calls in parallel. timeout_seconds: of one call of a model.
    constrained: the planner can write nothing but a plan; needs a model that takes a JSON schema as `response_format`.

    What is empty, and a plan that is cut off or in no form, is asked for once more, then AnswerMalformed. A thought or
    reply that is cut off is taken. An unknown tool, a tool that fails and what refers to either is left out: the reply
    is made without. The outcome says so. The dialogue's older turns and what the tools gave shrink where the window is
    small; the last message stands in every prompt. Raises ValueError for a wrong setting.
    """

    model: Model
    tools: Mapping[str, Handler | FunctionTool | Callable[[str], Any]]
    planner: Model | None = None
    executor: Model | None = None
    max_calls: int = 8
    at_once: int = 8
    sampling: Sampling = Sampling(max_tokens=256)
    timeout_seconds: float | None = None
    constrained: bool = False

    def __post_init__(self) -> None:
        if self.max_calls < 1 or self.at_once < 1:
            raise ValueError(
                f"`max_calls` and `at_once` must be at least 1, got {self.max_calls!r} and {self.at_once!r}"
            )
        if wrong := [name for name in self.tools if not re.fullmatch(r"[\w-]+", name)]:
            raise ValueError(f"a tool's name is a word of letters, digits, _ and -, got {wrong[0]!r}")
        if not self.tools:
            raise ValueError("`tools` must hold at least one; without, ask the model itself")
        object.__setattr__(self, "tools", {name: as_handler(one) for name, one in self.tools.items()})

    def task(self, message: str, *, history: Sequence[Part | SupportsPart] = ()) -> Task[Response]:
        """The reply to the user's message. history: the dialogue before it, as turns."""
        turns = tuple(replace(one.as_part(), id=f"turn-{at}") for at, one in enumerate(history, 1))

        async def work(job: Job) -> Response:
            return await _Machine(self, job, message, turns).run()

        return Task("think-plan-execute", work, method=type(self).__name__)

    def handler(self, name: str) -> Handler:
        return cast(Handler, self.tools[name])  # functions were wrapped in __post_init__


@dataclass
class _Machine:
    method: ThinkPlanExecute
    job: Job
    message: str
    history: tuple[Part, ...]
    thought: str = ""
    calls: list[Call] = field(default_factory=list)
    reply: str = ""

    async def run(self) -> Response:
        moves = {
            State.THINK: self._think,
            State.PLAN: self._plan,
            State.CALL: self._call,
            State.EXECUTE: self._execute,
        }
        state = State.THINK
        while state is not State.DONE:
            state = await moves[state]()
        return Response(self.reply, self.thought, tuple(self.calls))

    async def _think(self) -> State:
        self.thought = await self._ask(self.method.model, "think", _THINK, str)
        return State.PLAN

    async def _plan(self) -> State:
        tools = "\n".join(f"{name}: {self.method.handler(name).description}" for name in self.method.tools)
        told = f"{_PLAN}\n{tools}\nThe user's needs: {self.thought}"
        sampling = self.method.sampling
        if self.method.constrained:
            sampling = replace(sampling, response_format=_form(self.method))
        planner = self.method.planner or self.method.model
        planned = await self._ask(planner, "plan", told, read_plan, sampling=sampling)
        if len(planned) > self.method.max_calls:
            self.job.degraded(f"{len(planned)} calls were planned and the first {self.method.max_calls} were made")
        self.calls = planned[: self.method.max_calls]
        return State.CALL if self.calls else State.EXECUTE

    async def _call(self) -> State:
        """Wave after wave: all calls whose references are there."""
        for at, call in enumerate(self.calls):
            if call.tool not in self.method.tools:
                self._leave_out(at, f"there is no tool {call.tool!r}")
        while waiting := [at for at, call in enumerate(self.calls) if not call.result and not call.missing]:
            ready = [
                at for at in waiting if not {number - 1 for number in references(self.calls[at].query)} & {*waiting}
            ]
            for at in ready:
                self._check_sources(at)
            going = [at for at in ready if not self.calls[at].missing]
            done = await self.job.all([self._asked(at) for at in going], at_once=self.method.at_once)
            for at, call in zip(going, done, strict=True):
                self.calls[at] = call
                if call.missing:
                    self._leave_out(at, call.missing)
        return State.EXECUTE

    async def _execute(self) -> State:
        given = [
            passage(call.result, id=f"result-{at}", title=f"{call.tool}: {call.query}")
            for at, call in enumerate(self.calls, 1)
            if not call.missing
        ]
        executor = self.method.executor or self.method.model
        self.reply = await self._ask(executor, "execute", f"{_EXECUTE} {self.thought}", str, given)
        return State.DONE

    def _check_sources(self, at: int) -> None:
        missing = [number for number in references(self.calls[at].query) if self.calls[number - 1].missing]
        if missing:
            self._leave_out(at, f"it needs #{missing[0]}, which is missing")

    def _leave_out(self, at: int, why: str) -> None:
        self.calls[at] = replace(self.calls[at], missing=why)
        self.job.degraded(f"call {at + 1}, `{self.calls[at].tool}`, is left out of the reply: {why}")

    async def _asked(self, at: int) -> Call:
        """The call with its result, or with the reason why there is none. Only what ends the whole run is raised."""
        call, name = self.calls[at], f"{at + 1}-{self.calls[at].tool}"
        results = {number: self.calls[number - 1].result for number in references(call.query)}
        asked, handler = SubQuestion(with_references(call.query, results)), self.method.handler(call.tool)
        task = Task(name, lambda job: handler.answer(job, asked), method=type(handler).__name__)
        try:
            answer = await self.job.spawn(task, name=name)
        except (BudgetOverdrawn, BudgetClosed, CheckpointError):
            raise
        except CtxkitError as error:
            return replace(call, missing=f"{type(error).__name__}: {error}")
        text = answer if isinstance(answer, str) else as_json(answer)
        return replace(call, result=text) if text.strip() else replace(call, missing="it gave nothing")

    async def _ask(
        self,
        model: Model,
        step: str,
        told: str,
        read: Callable[[str], T],
        given: Sequence[Part] = (),
        sampling: Sampling | None = None,
    ) -> T:
        sampling, timeout = sampling or self.method.sampling, self.method.timeout_seconds
        plan = partial(self._prompt, model, [system(told, id="role"), *self.history, *given])
        return await ask_in_form(
            self.job, model, plan, read, sampling, step=step, timeout_seconds=timeout, or_cut=step != "plan"
        )

    def _prompt(self, model: Model, parts: Sequence[Part], end: Sequence[Part]) -> Plan:
        from ctxkit.compression import standard

        everything = [*parts, question(self.message, id="message"), *end]
        plan = self.job.plan(model, everything, self.method.sampling, compressors=standard())
        if less := [one.part.id for one in plan.decisions if one.level != "full"]:
            self.job.degraded(f"{len(less)} of {len(everything)} parts were shortened or left out: {', '.join(less)}")
        return plan


def _form(method: ThinkPlanExecute) -> dict[str, Any]:
    """A list of calls of the tools that there are."""
    fields = {"tool": {"enum": list(method.tools)}, "query": {"type": "string", "maxLength": _QUERY_CHARS}}
    call = {"type": "object", "properties": fields, "required": list(fields)}
    schema = {"type": "array", "items": call, "maxItems": method.max_calls}
    return {"type": "json_schema", "json_schema": {"name": "plan", "schema": schema}}


def read_plan(text: str) -> list[Call]:
    """Calls from a JSON list, or from lines "1. tool: query". Raises Malformed, also for a reference that looks ahead.

    >>> read_plan("1. persona: What does Ann like?\\n2. search: Trips for someone who likes #1")[1]
    Call(tool='search', query='Trips for someone who likes #1', result='', missing='')
    """
    lists = [value for value in json_values(text) if isinstance(value, list)]
    listed = next((value for value in lists if value and isinstance(value[0], dict)), None)
    calls = _from_json(listed) if listed is not None else _from_lines(text) or _from_json(*lists[:1])
    for at, call in enumerate(calls, 1):
        for number in references(call.query):
            if not 1 <= number < at:
                raise Malformed(f"call {at} names #{number}, which is no earlier call")
    return calls


def _from_json(listed: list[Any] | None = None) -> list[Call]:
    if listed is None:
        raise Malformed("it holds no plan: write a JSON list of calls, [] for none")
    for at, item in enumerate(listed, 1):
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("tool", "query")):
            raise Malformed(f'call {at} must be {{"tool": "...", "query": "..."}}, got {as_json(item)[:80]}')
    return [Call(item["tool"].strip(), item["query"].strip()) for item in listed]


def _from_lines(text: str) -> list[Call]:
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    return [Call(one["tool"], one["query"].strip()) for one in found if one]
