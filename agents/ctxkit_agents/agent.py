"""Agent: a model that uses tools, step by step, until it has an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Literal

from ctxkit.compression import ContentCompressor, StubCompressor
from ctxkit.context import Compressor, Limits, Plan
from ctxkit.context.chat import conversation
from ctxkit.context.expand import EXPAND_NAME
from ctxkit.models.requests import GREEDY
from ctxkit.protocols import ChatMessage, Model, Sampling
from ctxkit.session import CachePrices, Originals
from ctxkit.session.cache import CacheReport
from ctxkit_agents.agent_protocol import ProtocolName
from ctxkit_agents.result_search import FIND_NAME
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.runtime.tools import FunctionTool, as_tools
from ctxkit_agents.task_tool import TaskTool
from ctxkit_agents.tool_use import ToolUse

_RESULT_SHARE = 24  # a new result may take so much of the window; twice as much shows hardly more, at twice the cost
_LEAST_RESULT = 128
_STUB_UTILITY = 0.3  # naming all results is worth more to an agent than a long extract of one


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What an agent came to.

    steps: answers of the model that it took. tool_uses: in order. messages: the whole conversation as it was, in
    OpenAI's form. cache: what a prompt cache can make of the prompt of each step. plan: of the last step.
    """

    text: str
    steps: int
    tool_uses: tuple[ToolUse, ...]
    messages: tuple[ChatMessage, ...]
    cache: tuple[CacheReport, ...]
    plan: Plan = field(repr=False)

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens of all steps that stood at the beginning of the prompt before, so that a cache has them."""
        return sum(report.reused_tokens for report in self.cache)

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens of all steps that had to be computed."""
        return sum(report.prefill_tokens for report in self.cache)

    def weighted_tokens(self, prices: CachePrices) -> float:
        """Prompt tokens of all steps at the prices of a prompt cache, in tokens that no cache knows."""
        return prices.read * self.reused_tokens + prices.write * self.prefill_tokens


@dataclass(frozen=True)
class Agent:
    """A model with tools, in a loop (ReAct, arXiv 2210.03629), whose prompts never outgrow the window.

        agent = Agent(model, [read_file, run_tests], instructions="You repair programs.")
        print(agent.task("Why does the build fail?").run().text)

    tools: functions or FunctionTools. None may be called `expand`, which gives back what a prompt left out, or
        `find_in_results`.
    instructions: the system prompt. name: of its job.
    max_steps: answers of the model in which it may call tools. parallel_calls: made at once. calls_per_step: of one
        answer; more are refused.
    answer_tokens: of each answer of the model. window_tokens: a smaller window than the model's.
    result_tokens: a tool's result that has more is reduced before the model sees it first, and `expand` gives it
        whole; None: a 24th of the window, at least 128.
    search_results: offer `find_in_results` beside the tools, which finds lines in all results so far, also in those
        that no prompt names any more.
    target, expected_turns, prices, store, compressors: as of `ctxkit.Session`, which plans each prompt.
    stop_after_same_calls: a call that gave the same result so often is pointed out to the model; once more, and the
        steps are exhausted. None: never.
    on_exhausted: "answer": the model is asked once more, for an answer without tools, and the run says that it was;
        "raise": StepsExhausted.
    protocol: "tools" for the model's own tool calls, "json" for models that have none.
    retries: of a call of the model whose error is `retryable`. timeout_seconds: of each call.

    The system prompt and the task stay in every prompt, verbatim. A tool's result stays at least as a line that says
    how to get it back; where there is no room even for that, the oldest go, and the run says so. What goes wrong with
    a tool is told to the model: an unknown name, wrong arguments, an error, a time-out. An empty answer, and one that
    is not in the form of the protocol, is pointed out once; a second one in a row is AnswerMalformed.

    A run that pays with "degrade" and `on_exhausted="answer"` asks for the answer while it can still pay for it.

    Raises ValueError for numbers out of range, for tools of one name and for a name that is taken. A run raises
    BudgetInfeasible where the window is too small for the task, BudgetOverdrawn where the run cannot pay,
    AnswerMalformed, StepsExhausted, and what the model raises.
    """

    model: Model
    tools: Sequence[FunctionTool | Callable[..., Any]] = ()
    _: KW_ONLY
    instructions: str = ""
    name: str = "agent"
    max_steps: int = 50
    answer_tokens: int = 512
    window_tokens: int | None = None
    result_tokens: int | None = None
    search_results: bool = True
    parallel_calls: int = 8
    calls_per_step: int = 16
    stop_after_same_calls: int | None = 3
    on_exhausted: Literal["answer", "raise"] = "answer"
    protocol: ProtocolName = "tools"
    sampling: Sampling = GREEDY
    retries: int = 2
    timeout_seconds: float | None = None
    target: float = 0.4
    expected_turns: float | None = None
    prices: CachePrices = field(default_factory=CachePrices)
    store: Originals | None = None
    compressors: Sequence[Compressor] = (ContentCompressor(), StubCompressor(_STUB_UTILITY))

    def __post_init__(self) -> None:
        for name in ("max_steps", "answer_tokens", "parallel_calls", "calls_per_step"):
            _check_least(name, getattr(self, name), 1)
        for name in ("window_tokens", "result_tokens", "stop_after_same_calls"):
            if getattr(self, name) is not None:
                _check_least(name, getattr(self, name), 1)
        _check_least("retries", self.retries, 0)
        if self.on_exhausted not in ("answer", "raise") or self.protocol not in ("tools", "json"):
            raise ValueError(
                '`on_exhausted` must be "answer" or "raise" and `protocol` "tools" or "json", '
                f"got {self.on_exhausted!r} and {self.protocol!r}"
            )
        if not 0 < self.target <= 1:
            raise ValueError(f"`target` must be in (0, 1], got {self.target!r}")
        if self.answer_tokens >= self.window:
            raise ValueError(
                f"`answer_tokens` ({self.answer_tokens:,}) leaves nothing of a window of {self.window:,} tokens"
            )
        if taken := self.toolbox.keys() & {EXPAND_NAME, FIND_NAME}:
            raise ValueError(f"no tool may be called {min(taken)!r}: the agent has one of that name")

    @cached_property
    def toolbox(self) -> dict[str, FunctionTool]:
        """The tools by name."""
        return as_tools(self.tools)

    @property
    def window(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return min(self.model.window_tokens, self.window_tokens or self.model.window_tokens)

    @property
    def new_result_tokens(self) -> int:
        """What a result may have when the model sees it first."""
        return self.result_tokens or max(self.window // _RESULT_SHARE, _LEAST_RESULT)

    def task(self, question: str | Sequence[ChatMessage]) -> Task[AgentAnswer]:
        """question: the task, or a conversation in OpenAI's form that goes on; its last user message is the task then.

        Raises PartError for what is no conversation, ValueError for one without a message of the user.
        """
        messages = _messages(question, self.instructions)

        async def work(job: Job) -> AgentAnswer:
            from ctxkit_agents.agent_loop import AgentLoop

            return await AgentLoop(self, job, messages).run()

        return Task(self.name, work, method=type(self).__name__)

    def as_tool(
        self,
        name: str,
        description: str,
        *,
        return_tokens: int = 1024,
        tokens: int | None = None,
        share: float | None = None,
        limits: Limits | None = None,
    ) -> TaskTool:
        """This agent as a tool of another one, which asks it a `question`; see `TaskTool`."""

        def asked(question: str) -> Task[AgentAnswer]:
            return self.task(question)

        return TaskTool(
            asked,
            name,
            description,
            counter=self.model.counter,
            return_tokens=return_tokens,
            tokens=tokens,
            share=share,
            limits=limits,
        )


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"`{name}` must be {least} or more, got {value!r}")


def _messages(question: str | Sequence[ChatMessage], instructions: str) -> tuple[ChatMessage, ...]:
    given = [{"role": "user", "content": question}] if isinstance(question, str) else [dict(one) for one in question]
    conversation(given)
    if not any(message["role"] == "user" for message in given):
        raise ValueError("the messages have none of the user; the last of them is the agent's task")
    if not instructions:
        return tuple(given)
    first = given[0]
    if first["role"] == "system" and isinstance(first["content"], str):
        return ({**first, "content": f"{instructions}\n\n{first['content']}"}, *given[1:])
    return ({"role": "system", "content": instructions}, *given)
