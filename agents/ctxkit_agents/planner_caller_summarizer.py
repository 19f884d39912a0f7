"""PlannerCallerSummarizer: one role decides, one writes the call, one concludes."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from ctxkit.context import Limits, Plan
from ctxkit.context.part import Part, passage, question, system
from ctxkit.errors import BudgetError, BudgetInfeasible, BudgetOverdrawn
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.errors import StepsExhausted, ToolError
from ctxkit_agents.runtime.forms import Malformed, ask_in_form
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.reading import first_json
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.runtime.tool_use import use_tool
from ctxkit_agents.runtime.tools import FunctionTool, as_tools

T = TypeVar("T")
Role = Literal["planner", "caller", "summarizer"]
_ROLES: tuple[Role, ...] = get_args(Role)

_PROMPTS: Mapping[Role, str] = {
    "planner": (
        "You plan how to answer the user's question with tools. Say in a sentence or two what is known and what is to "
        "be done next. End with one of these lines:\nNext: caller.\nNext: conclusion.\nNext: give up.\n"
        "caller: a tool is to be used. conclusion: the history holds the answer. give up: the tools cannot answer."
    ),
    "caller": (
        "You write one tool call that does what the last thought says. Answer with two lines:\n"
        "Action: the name of one of the tools\nAction Input: its arguments, a JSON object\n"
        'Or with one JSON object: {"Action": "...", "Action Input": {...}}'
    ),
    "summarizer": "You answer the user's question from the history below, and from nothing else.",
}
_CLOSING: Mapping[Role, str] = {
    "planner": "What is next?",
    "caller": "Write the call.",
    "summarizer": "Answer the question now.",
}
_NEXT = re.compile(r"(?s)(?P<thought>.*?)\s*Next: *(?P<next>caller|conclusion|give up)\.?", re.IGNORECASE)
_PLAN_FORM = {"type": "regex", "regex": r"[^\n ][^\n]{0,200}\nNext: (caller|conclusion|give up)\."}
_ACTION = re.compile(r"(?s)\s*Action: *(?P<name>[^\n]+?) *\n\s*Action Input:(?P<arguments>.*)")


class State(Enum):
    """Who is at work. PLAN -> CALL -> PLAN ... PLAN -> CONCLUDE -> DONE, or PLAN -> GIVE_UP -> DONE."""

    PLAN = "the planner writes a thought and says who is next"
    CALL = "the caller writes a call, and the tool is used"
    CONCLUDE = "the summarizer answers from the history"
    GIVE_UP = "the planner sees no way"
    DONE = "there is a result"


_AFTER: Mapping[str, State] = {"caller": State.CALL, "conclusion": State.CONCLUDE, "give up": State.GIVE_UP}


@dataclass(frozen=True, slots=True)
class ToolStep:
    """thought: the planner's. result: what the tool returned, or with `failed` what went wrong."""

    thought: str
    tool: str
    arguments: Mapping[str, Any]
    result: str
    failed: bool = False


@dataclass(frozen=True)
class Conclusion:
    """text: the answer; where the planner gave up, its last thought. steps: what was tried, in order."""

    text: str
    steps: tuple[ToolStep, ...]
    gave_up: bool = False


@dataclass(frozen=True)
class PlannerCallerSummarizer:
    """Three small models in place of one large agent (alpha-UMi, arXiv 2401.07324), with prompts alone.

    model: all three roles, but for those that have one of their own in `caller` and `summarizer`.
    tools: functions or FunctionTools. shares: how much of the run's tokens each role may use at most; needs a run with
        a limit of tokens. None is whatever is there.
    max_steps: tool uses. sampling: of every role. timeout_seconds: of one call of a model.
    constrained: planner and caller can write nothing but their form; needs models that take a regex and a JSON schema
        as `response_format`, as LocalModel does with the extra `structured`.

    The question and the tools always stand in the prompt whole. Old steps are the first to shrink or go, the last one
    shrinks but stays. The summarizer sees the history, no tools.
    An answer that is empty, cut off, or in no form (unknown tool and wrong arguments included) is asked for once more,
    then AnswerMalformed; a conclusion that is cut off is taken, and the outcome says so. What a tool refuses goes into
    the history. Giving up is a result. More than `max_steps` is StepsExhausted. With `shares`, where planner or caller
    cannot pay any more and there are steps, the summarizer concludes from those, and the outcome says so. Raises
    ValueError for a wrong setting.
    """

    model: Model
    tools: Sequence[FunctionTool | Callable[..., Any]]
    caller: Model | None = None
    summarizer: Model | None = None
    shares: Mapping[Role, float] | None = None
    max_steps: int = 8
    sampling: Sampling = Sampling(max_tokens=256)
    timeout_seconds: float | None = None
    constrained: bool = False

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {self.max_steps!r}")
        if not self.tools:
            raise ValueError("`tools` must hold at least one; without, ask the model itself")
        object.__setattr__(self, "tools", tuple(as_tools(self.tools).values()))
        shares = self.shares
        if shares is not None and (
            set(shares) != set(_ROLES) or min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9
        ):
            raise ValueError(f"`shares` must hold {', '.join(_ROLES)}, each above 0, at most 1 in all, got {shares!r}")

    def task(self, question: str) -> Task[Conclusion]:
        """The question's answer."""

        async def work(job: Job) -> Conclusion:
            return await _Machine(self, job, question, self._allowed(job)).run()

        return Task("planner-caller-summarizer", work, method=type(self).__name__)

    def model_of(self, role: Role) -> Model:
        own = {"planner": None, "caller": self.caller, "summarizer": self.summarizer}[role]
        return own or self.model

    def sampling_of(self, role: Role) -> Sampling:
        """With the form of the role's answer, where it is constrained."""
        if not self.constrained or role == "summarizer":
            return self.sampling
        return replace(
            self.sampling, response_format=_PLAN_FORM if role == "planner" else _call_form(as_tools(self.tools))
        )

    def _allowed(self, job: Job) -> dict[Role, int] | None:
        """Tokens by role. Raises BudgetError where there is nothing to share."""
        if self.shares is None:
            return None
        left = job.run.left.tokens
        if left is None:
            raise BudgetError(f"{job.run.name!r} has no limit of tokens for `shares`; run it with Limits(tokens=...)")
        return {role: int(left * share) for role, share in self.shares.items()}


@dataclass
class _Machine:
    method: PlannerCallerSummarizer
    job: Job
    question: str
    allowed: dict[Role, int] | None
    steps: list[ToolStep] = field(default_factory=list)
    thought: str = ""
    result: Conclusion | None = None

    async def run(self) -> Conclusion:
        moves = {
            State.PLAN: self._plan,
            State.CALL: self._call,
            State.CONCLUDE: self._conclude,
            State.GIVE_UP: self._give_up,
        }
        state = State.PLAN
        while state is not State.DONE:
            try:
                state = await moves[state]()
            except (BudgetOverdrawn, BudgetInfeasible) as error:
                state = self._without_means(state, error)
        assert self.result is not None  # CONCLUDE and GIVE_UP alone lead to DONE
        return self.result

    async def _plan(self) -> State:
        self.thought, after = await self._ask("planner", _read_plan)
        if after is State.CALL and len(self.steps) == self.method.max_steps:
            raise StepsExhausted(f"{self.job.path} has used tools `max_steps` {self.method.max_steps} times, no end")
        return after

    async def _call(self) -> State:
        """One job asks the caller and uses the tool."""

        async def call(job: Job) -> ToolStep:
            tool, arguments = await self._answer(job, "caller", partial(_read_call, as_tools(self.method.tools)))
            try:
                result, failed = await use_tool(job, tool, arguments), False
            except ToolError as error:
                result, failed = str(error), True
            return ToolStep(self.thought, tool.name, arguments, result, failed)

        self.steps.append(await self._as("caller", call))
        self.thought = ""
        return State.PLAN

    async def _conclude(self) -> State:
        self.result = Conclusion(await self._ask("summarizer", str), tuple(self.steps))
        return State.DONE

    async def _give_up(self) -> State:
        self.result = Conclusion(self.thought, tuple(self.steps), gave_up=True)
        return State.DONE

    def _without_means(self, state: State, error: BudgetOverdrawn | BudgetInfeasible) -> State:
        """To the summarizer, whose share nobody else could touch, where it has anything to go by."""
        if self.allowed is None or state is State.CONCLUDE or not self.steps:
            raise error
        self.job.degraded(f"the {state.name} state had no tokens left; the answer is made of {len(self.steps)} steps")
        self.thought = ""
        return State.CONCLUDE

    async def _ask(self, role: Role, read: Callable[[str], T]) -> T:
        return await self._as(role, lambda job: self._answer(job, role, read))

    async def _as(self, role: Role, work: Callable[[Job], Awaitable[T]]) -> T:
        """The work in a job of the role, on what is left of its share."""

        async def booked(job: Job) -> T:
            try:
                return await work(job)
            finally:
                if self.allowed is not None:
                    self.allowed[role] -= job.run.spent.tokens

        name = role if role == "summarizer" else f"{role}-{len(self.steps) + 1}"
        limits = None if self.allowed is None else Limits(tokens=_something(self.allowed[role], role, self.job))
        return await self.job.spawn(Task(name, booked, method=role), name=name, limits=limits)

    async def _answer(self, job: Job, role: Role, read: Callable[[str], T]) -> T:
        method = self.method
        return await ask_in_form(
            job,
            method.model_of(role),
            partial(self._prompt, job, role),
            read,
            method.sampling_of(role),
            step=role,
            timeout_seconds=method.timeout_seconds,
            or_cut=role == "summarizer",
        )

    def _prompt(self, job: Job, role: Role, end: Sequence[Part]) -> Plan:
        from ctxkit.compression import standard

        method = self.method
        docs = "" if role == "summarizer" else "\nTools:\n" + _described(as_tools(method.tools))
        thought = f"\n\nThe last thought: {self.thought}" if self.thought else ""
        parts = [
            system(_PROMPTS[role] + docs, id="role"),
            *(_shown(step, age) for age, step in zip(range(len(self.steps) - 1, -1, -1), self.steps, strict=True)),
            question(f"{self.question}{thought}\n\n{_CLOSING[role]}", id="question"),
            *end,
        ]
        plan = job.plan(method.model_of(role), parts, method.sampling, compressors=standard())
        less = [one.part.id for one in plan.decisions if one.level != "full"]
        if less:
            job.degraded(f"the {role} saw {len(less)} of {len(parts)} parts shortened or not at all")
        return plan


def _shown(step: ToolStep, age: int) -> Part:
    """A step as it stands in prompts: what was called whole, what came of it shorter where need be."""
    called = f"Thought: {step.thought}\nAction: {step.tool}\nAction Input: {_json(step.arguments)}"
    return passage(
        step.result,
        id=f"step-{age}-ago",
        title=f"{called}\n{'Failed' if step.failed else 'Observation'}:",
        relevance=1 / (1 + age),
        required=age == 0,
    )


def _described(tools: Mapping[str, FunctionTool]) -> str:
    schemas = (tool.schema["function"] for tool in tools.values())
    return "\n".join(f"{one['name']}: {one['description']} Arguments: {_json(one['parameters'])}" for one in schemas)


def _call_form(tools: Mapping[str, FunctionTool]) -> dict[str, Any]:
    """One object {"Action": name, "Action Input": arguments}, of any of the tools."""
    calls, definitions = [], {}
    for tool in tools.values():
        parameters = dict(tool.schema["function"]["parameters"])
        definitions.update(parameters.pop("$defs", {}))  # references are looked up at the root
        fields = {"Action": {"const": tool.name}, "Action Input": parameters}
        calls.append({"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False})
    return {"type": "json_schema", "json_schema": {"name": "call", "schema": {"anyOf": calls, "$defs": definitions}}}


def _read_plan(text: str) -> tuple[str, State]:
    found = _NEXT.fullmatch(text)
    if found is None:
        raise Malformed("it must end with one of `Next: caller.`, `Next: conclusion.` and `Next: give up.`")
    return found["thought"], _AFTER[found["next"].lower()]


def _read_call(tools: Mapping[str, FunctionTool], text: str) -> tuple[FunctionTool, dict[str, Any]]:
    whole = first_json(text) if text.startswith("{") else None
    found = _ACTION.fullmatch(text)
    if isinstance(whole, dict) and {"Action", "Action Input"} <= whole.keys():
        name, given = str(whole["Action"]), whole["Action Input"]
    elif found is not None:
        name, given = found["name"], first_json(found["arguments"])
    else:
        raise Malformed("it must be two lines, `Action: name` and `Action Input: {...}`")
    if name not in tools:
        raise Malformed(f"there is no tool {name!r}; there are {', '.join(tools)}")
    tool = tools[name]
    if not isinstance(given, dict):
        raise Malformed(f"the Action Input of `{tool.name}` is no JSON object: {text[-80:]!r}")
    try:
        tool.checked(given)
    except ToolError as error:
        raise Malformed(str(error)) from error
    return tool, given


def _something(left: int, role: Role, job: Job) -> int:
    if left < 1:
        raise BudgetOverdrawn(
            f"the {role} of {job.path} has used up its share of the run",
            run=job.run.name,
            limit="tokens",
            needed=1,
            left=0,
        )
    return left


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
