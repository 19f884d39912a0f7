"""TaskTool: a whole task as a tool of an agent, with an account and a trace of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ctxkit.compression import ContentCompressor, compress
from ctxkit.context import Amounts, Limits
from ctxkit.errors import CtxkitError
from ctxkit.protocols import Counter, Reply
from ctxkit_agents.errors import CheckpointError, ToolError
from ctxkit_agents.runtime.events import Finished
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.runtime.tools import FunctionTool


@dataclass(frozen=True)
class TaskTool(FunctionTool):
    """A task as a tool: what it comes to is the result, shortened to `return_tokens`.

    function: makes the task from the model's arguments; `Agent.as_tool` makes one that takes a `question`.
    counter: counts the result. return_tokens: the most that the result may have; a longer one is reduced by what it
        is and what was asked, and the run says so.
    tokens, share, limits: granted to the job (`Job.spawn`), which borrows as it needs.

    It runs in a job below the one that uses it, so the run's limit of `depth` bounds agents that use agents. An error
    of the task (but for one of the checkpoint) is told to the model as a failure of the tool.
    Raises ValueError for `return_tokens` below 1.
    """

    function: Callable[..., Task[Any]]
    timeout_seconds: float | None = field(default=None, init=False)
    retries: int = field(default=0, init=False)
    repeatable: bool = field(default=True, init=False)
    counter: Counter = field(kw_only=True)
    return_tokens: int = field(default=1024, kw_only=True)
    tokens: int | None = field(default=None, kw_only=True)
    share: float | None = field(default=None, kw_only=True)
    limits: Limits | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.return_tokens < 1:
            raise ValueError(f"`return_tokens` must be 1 or more, got {self.return_tokens!r}")

    async def use(
        self, job: Job, arguments: str | Mapping[str, Any], step: str, asked: Sequence[str]
    ) -> tuple[str, bool, bool]:
        """(text, failed, replayed) of one use. Its end is a step of the job above, its own steps are below it.

        A failure is in the checkpoint, so a run that is resumed does not try again what the model was told has failed.
        """
        given = self.checked(arguments)
        name = f"{self.name} {step.removeprefix('tool ')}"

        async def make() -> Any:
            try:
                return {"text": await self._shortened(job, await self._spawned(job, given, name), given)}
            except CheckpointError:
                raise
            except CtxkitError as error:
                failed = f"Error: `{self.name}` failed: {type(error).__name__}: {error}"
                return {"failed": failed, "spent": asdict(_spent(job, name))}

        done = await job.once(step, list(asked), make)
        if done.replayed and "text" in done.value:
            await self._spawned(job, given, name)  # all its steps are known: this books them and tells them again
        elif done.replayed:
            _book(job, Amounts(**done.value["spent"]))
        failed = done.value.get("failed")
        return failed or done.value["text"], failed is not None, done.replayed

    async def call(self, arguments: str | Mapping[str, Any]) -> str:
        """Raises ToolError: only an agent can use it."""
        raise ToolError(f"`{self.name}` runs below a job; give it to an Agent")

    async def _spawned(self, job: Job, given: Mapping[str, Any], name: str) -> str:
        task = self.function(**given)
        value = await job.spawn(task, name=name, tokens=self.tokens, share=self.share, limits=self.limits)
        return str(getattr(value, "text", value))

    async def _shortened(self, job: Job, text: str, given: Mapping[str, Any]) -> str:
        tokens = self.counter.count(text)
        if tokens <= self.return_tokens:
            return text
        question = " ".join(str(value) for value in given.values())
        short = compress(
            text, ContentCompressor(), tokens=self.return_tokens, question=question, counter=self.counter
        ).text
        job.degraded(f"the result of {self.name} had {tokens:,} tokens and was reduced to {self.return_tokens:,}")
        return short


def _spent(job: Job, name: str) -> Amounts:
    """By the job of this name below; nothing where it did not even begin."""
    path = f"{job.path}/{name}"
    ends = (event for event in reversed(job.recorder.events) if isinstance(event, Finished) and event.path == path)
    return next((event.spent for event in ends), Amounts())


def _book(job: Job, spent: Amounts) -> None:
    """What a failed task had spent before it failed, in as many calls."""
    for call in range(spent.calls):
        tokens_in, tokens_out = (0, 0) if call else (spent.tokens_in, spent.tokens_out)
        with job.run.reserve(tokens_in=tokens_in, tokens_out=tokens_out) as ticket:
            ticket.settle(Reply("", "stop", tokens_in, tokens_out, ""))
