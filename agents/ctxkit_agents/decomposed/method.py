"""Decomposed: the state machine that asks for a step, has it answered, and asks for the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, cast

from ctxkit.context.part import Part, SupportsPart, question, system
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.decomposed.grammar import (
    END,
    OPERATIONS,
    Step,
    as_json,
    parse_demonstration,
    parse_step,
    shown,
    step_regex,
)
from ctxkit_agents.decomposed.handlers import Handler, SubQuestion, as_handler, as_passage
from ctxkit_agents.decomposed.operations import Asked, resolved
from ctxkit_agents.decomposed.prompts import Demonstrated
from ctxkit_agents.errors import AnswerMalformed, StepsExhausted, ToolError
from ctxkit_agents.runtime.forms import Malformed, reminder, whole
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.runtime.tools import FunctionTool


class HandlerFailed(ToolError):
    """A handler failed, and failed again with what the decomposer asked after it was told."""


@dataclass(frozen=True, slots=True)
class AnsweredStep:
    """step: as the model wrote it. questions: what was asked, references resolved. answer: a JSON value, its #k."""

    step: Step
    questions: tuple[str, ...]
    answer: Any


@dataclass(frozen=True)
class Decomposition:
    """answer: the last step's, a JSON value. steps: those of the question itself; the trace has those below."""

    question: str
    answer: Any
    steps: tuple[AnsweredStep, ...]

    @property
    def text(self) -> str:
        """The answer, as JSON where it is no text."""
        return self.answer if isinstance(self.answer, str) else as_json(self.answer)

    def __str__(self) -> str:
        pairs = tuple((one.step, one.answer) for one in self.steps)
        return "\n".join([f"QC: {self.question}", *shown(pairs), f"QS: {END}"])


@dataclass(frozen=True)
class Decomposed:
    """Decomposed prompting (arXiv 2210.02406): a model writes one step at a time, and a handler answers it.

    model: the decomposer. handlers: by the name that stands in [brackets]; functions become `Function`, and another
    `Decomposed` is a handler too. demonstrations: whole decompositions, from QC to [EOQ], checked when they are given;
    where the prompt does not fit, the last ones go first. instructions: what else the decomposer should know.
    max_steps: of one question. max_depth: of `Recurse`; 0 is none. at_once: sub-questions in parallel.
    shown_chars: an answer longer than that is shown to the decomposer by its beginning; #k still is all of it.
    timeout_seconds: of one call of the decomposer. constrained: the model can write nothing but a step or the end, of
    `shown_chars` at most; needs one that takes a regex as `response_format`, as LocalModel does with the extra
    `structured`.

    Answers move by reference: the model writes #1, and code puts the answer there. Each sub-question is a job of its
    own, all under the run's budget. A line that is malformed, a step that was taken before, an unknown handler, a
    reference to nothing and a handler that fails are told to the model once per step; then AnswerMalformed or
    HandlerFailed. Too many steps, or too deep, is StepsExhausted. What the models and the budget raise ends the run as
    it is. Raises ValueError for a wrong setting.
    """

    model: Model
    handlers: Mapping[str, Handler | FunctionTool | Callable[[str], Any]]
    demonstrations: Sequence[str] = ()
    instructions: str = ""
    max_steps: int = 16
    max_depth: int = 8
    at_once: int = 8
    shown_chars: int = 400
    sampling: Sampling = Sampling(max_tokens=128, stop=("\nA:", "\nQC:"))
    timeout_seconds: float | None = None
    constrained: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.max_depth < 0 or self.at_once < 1 or self.shown_chars < 1:
            raise ValueError(
                "`max_steps`, `at_once` and `shown_chars` must be at least 1 and `max_depth` at least 0, got "
                f"{self.max_steps!r}, {self.at_once!r}, {self.shown_chars!r} and {self.max_depth!r}"
            )
        if not self.handlers:
            raise ValueError("`handlers` must hold at least one: nobody else answers sub-questions")
        for name in self.handlers:
            if not name.replace("_", "").replace("-", "").isalnum() or name == END.strip("[]"):
                raise ValueError(f"a handler's name is a word of letters, digits, _ and -, got {name!r}")
        if self.constrained:
            form = {"type": "regex", "regex": step_regex(self.handlers, self.shown_chars)}
            object.__setattr__(self, "sampling", replace(self.sampling, response_format=form))
        object.__setattr__(self, "handlers", {name: as_handler(one) for name, one in self.handlers.items()})
        object.__setattr__(self, "demonstrations", tuple(self._checked(text) for text in self.demonstrations))

    def task(self, question: str, *, passages: Sequence[str | Part | SupportsPart] = ()) -> Task[Decomposition]:
        """The question's answer and its steps. passages: what prompted handlers read; the decomposer does not."""
        read = tuple(replace(as_passage(one), id=f"passage-{at}") for at, one in enumerate(passages, 1))

        async def work(job: Job) -> Decomposition:
            return await self._work(job, SubQuestion(question, read, decompose=self._again))

        return Task("decomposed", work, method=type(self).__name__)

    async def answer(self, job: Job, asked: SubQuestion) -> Any:
        """The answer of another decomposer's sub-question: what makes it a handler. Its depth is its own."""
        return await self._again(job, SubQuestion(asked.text, asked.passages, decompose=self._again))

    async def _again(self, job: Job, asked: SubQuestion) -> Any:
        return (await self._work(job, asked)).answer

    async def _work(self, job: Job, asked: SubQuestion) -> Decomposition:
        if len(asked.above) > self.max_depth:
            raise StepsExhausted(
                f"the decomposition is {len(asked.above)} deep and `max_depth` is {self.max_depth}; "
                f"the chain ends in {asked.text[:80]!r}"
            )
        return await _Machine(self, job, asked).run()

    def _checked(self, text: str) -> str:
        try:
            demonstration = parse_demonstration(text)
        except Malformed as error:
            raise ValueError(f"a demonstration is malformed: {error}") from error
        for step, _ in demonstration.steps:
            if step.handler not in self.handlers:
                raise ValueError(f"a demonstration uses the handler {step.handler!r}, which is not in `handlers`")
        return str(demonstration)

    def handler(self, name: str) -> Handler:
        """Raises Malformed for an unknown one."""
        if name not in self.handlers:
            raise Malformed(f"there is no handler [{name}]; there are {', '.join(f'[{one}]' for one in self.handlers)}")
        return cast(Handler, self.handlers[name])  # functions were wrapped in __post_init__

    def system_prompt(self) -> str:
        """The grammar, the operations and the handlers, as the decomposer is told."""
        lines = [
            "You break a question into steps. Write the next step only, as one line:",
            "QS: (operation) [handler] sub-question",
            f"When the last answer answers the whole question, write: QS: {END}",
            "In a sub-question #1 is the first answer, #2 the second, and so on.",
            "Operations:",
            *(f"({name}) {what}" for name, what in OPERATIONS.items()),
            "_flat and _unique behind project_values open inner lists and drop repeats: (project_values_flat_unique)",
            "Handlers:",
            *(f"[{name}] {self.handler(name).description}".rstrip() for name in self.handlers),
        ]
        return "\n".join([*lines, self.instructions] if self.instructions else lines)


class State(Enum):
    """Where a decomposition is."""

    DECOMPOSE = "the model is asked for the next step"
    READ = "its line is read and its references are resolved"
    ANSWER = "the handler answers the sub-questions"
    CORRECT = "the model is told what was wrong, once per step"
    DONE = "the model has said [EOQ]"


@dataclass
class _Machine:
    """DECOMPOSE -> READ -> ANSWER -> DECOMPOSE ... READ -> DONE; from READ and ANSWER to CORRECT, and back to READ."""

    method: Decomposed
    job: Job
    asked: SubQuestion
    steps: list[AnsweredStep] = field(default_factory=list)
    line: str = ""  # what the model wrote last
    cut: str = ""  # why it is not whole
    next: tuple[Step, Asked] | None = None
    wrong: Exception | None = None  # what it was told about this step, if it was
    prompt: Demonstrated = field(init=False)

    def __post_init__(self) -> None:
        method, begin = self.method, [system(self.method.system_prompt())]
        self.prompt = Demonstrated(self.job, method.model, method.sampling, method.demonstrations, begin, [])

    async def run(self) -> Decomposition:
        moves = {
            State.DECOMPOSE: self._decompose,
            State.READ: self._read,
            State.ANSWER: self._answer,
            State.CORRECT: self._correct,
        }
        state = State.DECOMPOSE
        while state is not State.DONE:
            state = await moves[state]()
        return Decomposition(self.asked.text, self.steps[-1].answer, tuple(self.steps))

    async def _decompose(self) -> State:
        self.wrong = None
        return await self._ask("decompose", ())

    async def _correct(self) -> State:
        return await self._ask("correct", reminder(self.line, str(self.wrong)))

    async def _read(self) -> State:
        try:
            if self.cut:
                raise Malformed(self.cut)
            step = parse_step(self.line)
            if step is None and not self.steps:
                raise Malformed(f"{END} stands at the end, and there is no answer yet")
            if step is None:
                return State.DONE
            self.method.handler(step.handler)
            self._check_new(step)
            self.next = step, resolved(step, [one.answer for one in self.steps])
        except Malformed as error:
            return self._told(error)
        return State.ANSWER

    def _check_new(self, step: Step) -> None:
        """#k never changes, so that the same line has the same answer: a loop has begun."""
        before = [one.step for one in self.steps]
        if step in before:
            at = before.index(step) + 1
            raise Malformed(f"this is step {at} again, and #{at} is its answer; write another step or QS: {END}")

    async def _answer(self) -> State:
        assert self.next is not None  # READ goes to ANSWER with a step only
        step, asked = self.next
        if len(self.steps) == self.method.max_steps:
            raise StepsExhausted(f"{self.job.path} has taken `max_steps` {self.method.max_steps} steps and has no end")
        try:
            answer = asked.combine(await self._answers(step, asked.questions))
        except HandlerFailed:
            raise  # its own decomposer was told already
        except ToolError as error:
            return self._told(error)
        self.steps.append(AnsweredStep(step, asked.questions, answer))
        return State.DECOMPOSE

    def _told(self, error: Exception) -> State:
        """CORRECT, or the end where the model was told something about this step before."""
        first, self.wrong = self.wrong, error
        if first is None:
            return State.CORRECT
        at = f"step {len(self.steps) + 1} of {self.job.path}"
        if isinstance(error, ToolError):
            raise HandlerFailed(f"the handler of {at} failed twice: {error}") from error
        raise AnswerMalformed(
            f"{self.method.model.name!r} did not write {at} in the form asked for, twice: {error}", answer=self.line
        ) from error

    async def _ask(self, step: str, end: Sequence[Part]) -> State:
        """Asks for a line, and READ."""
        method = self.method
        self.prompt.after = [question(self._so_far(), id="question")]
        reply = await self.job.ask(
            method.model, self.prompt.plan(end), method.sampling, step=step, timeout_seconds=method.timeout_seconds
        )
        self.line, self.cut = reply.text, ""
        try:
            whole(reply)
        except Malformed as error:
            self.cut = str(error)
        return State.READ

    def _so_far(self) -> str:
        pairs = tuple((one.step, one.answer) for one in self.steps)
        asked = " ".join(self.asked.text.splitlines())  # a line of its own: what follows cannot pass for a step
        return "\n".join([f"QC: {asked}", *shown(pairs, self.method.shown_chars)])

    async def _answers(self, step: Step, questions: Sequence[str]) -> list[Any]:
        """One job for each sub-question, in parallel."""
        handler, at = self.method.handler(step.handler), len(self.steps) + 1
        works = []
        for number, text in enumerate(questions, 1):
            name = f"{at}-{step.handler}" + (f"-{number}" if len(questions) > 1 else "")
            works.append(self.job.spawn(self._sub(name, handler, text), name=name))
        return await self.job.all(works, at_once=self.method.at_once)

    def _sub(self, name: str, handler: Handler, text: str) -> Task[Any]:
        asked = replace(self.asked, text=text, above=(*self.asked.above, self.asked.text))
        return Task(name, lambda job: handler.answer(job, asked), method=type(handler).__name__)
