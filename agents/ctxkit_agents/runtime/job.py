"""Job: what a method's work is done with. It asks models and uses tools, pays for both, and says what it does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ctxkit.context import Budget, Compressor, Limits, Part, Plan, Run, Ticket, fit
from ctxkit.context.part import SupportsPart
from ctxkit.errors import CtxkitError, ModelError
from ctxkit.models.requests import GREEDY, Promptable, Request, as_request, count_prompt
from ctxkit.protocols import AsyncTextStream, Model, Reply, Sampling
from ctxkit.protocols import Tool as ToolSchema
from ctxkit_agents.errors import CallTimeout
from ctxkit_agents.runtime.checkpoint import Checkpoint, digest_of
from ctxkit_agents.runtime.events import Degraded, Finished, Message, Started, Tokens
from ctxkit_agents.runtime.recorder import Recorder
from ctxkit_agents.runtime.replies import asked_digest, reply_from_json, reply_to_json

if TYPE_CHECKING:
    from ctxkit_agents.runtime.task import Task

T = TypeVar("T")

_BUDGET = "budget"
_PROMPT_CHARS = 200  # of the last message, in events
_GRACE_SECONDS = 1.0  # for a stream to end after it was told to


@dataclass(frozen=True, slots=True)
class Once:
    """What `Job.once` came to. replayed: it was not done now but by a process before this one."""

    value: Any
    replayed: bool = False


class Job:
    """One method at work, or one worker of it. Made by `Task`; a method's `work` is given one.

    path: its name below those of the jobs that began it. run: the account that pays for it.

    Steps have names. Give steps that may run at the same time different names, or run each in a job of its own
    (`spawn`), so that a run that is resumed finds them again.
    """

    def __init__(self, path: str, run: Run, recorder: Recorder, checkpoint: Checkpoint | None) -> None:
        self.path = path
        self.run = run
        self.recorder = recorder
        self.checkpoint = checkpoint
        self._steps: Tally[str] = Tally()
        self._children: Tally[str] = Tally()

    def __repr__(self) -> str:
        return f"Job({self.path!r}, {self.run.name!r}, left: {self.run.left})"

    # --- models ------------------------------------------------------------------------------------------------

    def plan(
        self,
        model: Model,
        parts: Iterable[Part | SupportsPart],
        sampling: Sampling = GREEDY,
        *,
        tools: Sequence[ToolSchema] = (),
        compressors: Sequence[Compressor] = (),
        window_tokens: int | None = None,
    ) -> Plan:
        """The parts fitted into the model's window, or into what the run can pay for, with room for the answer.

        window_tokens: a smaller window than the model's. Raises BudgetInfeasible, BudgetOverdrawn, PartError.
        """
        window = min(model.window_tokens, window_tokens or model.window_tokens)
        budget = self.affordable(Budget(window, min(sampling.max_tokens, window - 1), run=self.run))
        return fit(parts, budget=budget, counter=model.counter, tools=tools, compressors=compressors)

    def affordable(self, budget: Budget) -> Budget:
        """`budget.affordable()`, and the same again where the run is resumed.

        A run that refuses what it cannot pay for keeps the whole answer free, and the prompt is the shorter for it.

        What a run can pay for depends on what others have in flight at the moment. The checkpoint keeps what it was, so
        that a resumed run makes the same prompts. Raises BudgetOverdrawn.
        """
        self._steps[_BUDGET] += 1
        key = f"{self.path}:{_BUDGET}#{self._steps[_BUDGET]}"
        known = None if self.checkpoint is None else self.checkpoint.begin(key, _BUDGET)
        if known is not None and known.done:
            window, reserve = known.result
            return replace(budget, window_tokens=window, reserve_tokens=reserve)
        found = self._with_its_answer(budget, budget.affordable())
        if self.checkpoint is not None:
            self.checkpoint.finish(key, [found.window_tokens, found.reserve_tokens])
        return found

    def _with_its_answer(self, asked: Budget, found: Budget) -> Budget:
        most = self.run.left.tokens_out
        reserve = min(asked.reserve_tokens, found.window_tokens - 1, asked.reserve_tokens if most is None else most)
        if self.run.overdraft != "raise" or asked.floors or reserve <= found.reserve_tokens:
            return found
        return replace(found, reserve_tokens=reserve)

    async def ask(
        self,
        model: Model,
        prompt: Promptable,
        sampling: Sampling = GREEDY,
        *,
        step: str = "ask",
        timeout_seconds: float | None = None,
        retries: int = 0,
    ) -> Reply:
        """One answer, paid for by the run; from the checkpoint where it is there, and booked all the same then.

        timeout_seconds: of each try. retries: an error that is `retryable` is tried again so often; all tries are one
        step of the checkpoint, and what each of them took is paid for.
        A run that pays with "degrade" may give the answer fewer tokens than asked for, and says so by an event.
        Raises BudgetOverdrawn, CallTimeout (after `timeout_seconds`), CheckpointMismatch, and what the model raises.
        """
        request = as_request(prompt, {model.counter.name})
        began = time.monotonic()

        async def answer() -> Any:
            for _ in range(retries):
                try:
                    return reply_to_json(await self._paid(model, request, sampling, step, timeout_seconds))
                except CtxkitError as error:
                    if not error.retryable:
                        raise
            return reply_to_json(await self._paid(model, request, sampling, step, timeout_seconds))

        done = await self.once(step, asked_digest(model, request, sampling), answer)
        reply = reply_from_json(done.value)
        if done.replayed:
            with self.run.reserve(tokens_in=reply.prompt_tokens, tokens_out=reply.completion_tokens) as ticket:
                ticket.settle(reply)
        took, asked = time.monotonic() - began, request.messages[-1].content
        self.tell(step, reply, prompt=asked, took=took, replayed=done.replayed)
        return reply

    async def _paid(
        self, model: Model, request: Request, sampling: Sampling, step: str, timeout_seconds: float | None
    ) -> Reply:
        tokens_in = count_prompt(request, model.counter)
        with self.run.reserve(
            tokens_in=tokens_in, tokens_out=sampling.max_tokens, window_tokens=model.window_tokens
        ) as ticket:
            if ticket.degraded:
                self.degraded(f"{step} had {ticket.tokens_out:,} tokens for its answer, not {sampling.max_tokens:,}")
            stream = model.astream(request, replace(sampling, max_tokens=ticket.tokens_out))
            await self._read(stream, ticket, step, model.name, timeout_seconds)
            ticket.settle(stream.reply)
        return stream.reply

    async def _read(
        self, stream: AsyncTextStream, ticket: Ticket, step: str, name: str, timeout_seconds: float | None
    ) -> None:
        """Reads to the end. What was computed before a timeout or a cancellation is paid for."""
        try:
            async with asyncio.timeout(timeout_seconds):
                async for piece in stream:
                    if self.recorder.wants_tokens:
                        self.recorder.add(Tokens(self.path, step, piece, seconds=self.recorder.seconds))
        except BaseException as error:
            with suppress(TimeoutError, CtxkitError):
                await asyncio.wait_for(asyncio.shield(_closed(stream)), _GRACE_SECONDS)
                ticket.settle(stream.reply)
            if isinstance(error, TimeoutError):
                raise CallTimeout(
                    f"{name!r} did not answer within {timeout_seconds:g} seconds ({self.path})"
                ) from error
            raise

    def tell(self, step: str, reply: Reply, *, prompt: str = "", took: float = 0.0, replayed: bool = False) -> None:
        """Says what a model answered where `ask` did not ask it, as with a local model's own session.

        prompt: its last message. Paying for it is the caller's, one ticket of `run` per reply.
        """
        self.recorder.add(
            Message(
                self.path,
                step,
                reply.model,
                prompt[:_PROMPT_CHARS],
                reply.text,
                reply.finish_reason,
                reply.prompt_tokens,
                reply.completion_tokens,
                took,
                reply.tool_calls,
                replayed,
                seconds=self.recorder.seconds,
            )
        )

    # --- steps -------------------------------------------------------------------------------------------------

    async def once(self, step: str, asked: Any, make: Callable[[], Awaitable[Any]], *, repeatable: bool = True) -> Once:
        """What `make` returns, a JSON value, or what the checkpoint holds of it from an earlier process.

        asked: a JSON value that says what is done; another one at the same step is a CheckpointMismatch.
        repeatable: whether it may be done again where a process died while it was being done. Where not, the value is
            None and `replayed` is True.
        """
        self._steps[step] += 1
        key = f"{self.path}:{step}#{self._steps[step]}"
        known = None
        if self.checkpoint is not None:
            known = self.checkpoint.begin(key, asked if isinstance(asked, str) else digest_of(asked))
        if known is not None and (known.done or not repeatable):
            return Once(known.result, replayed=True)
        value = await make()
        if self.checkpoint is not None:
            self.checkpoint.finish(key, value)
        return Once(value)

    def degraded(self, what: str) -> None:
        """Says that something is done worse than asked for. what: one sentence."""
        self.recorder.add(Degraded(self.path, what, seconds=self.recorder.seconds))

    # --- other jobs --------------------------------------------------------------------------------------------

    async def spawn(
        self,
        task: Task[T],
        *,
        name: str = "",
        tokens: int | None = None,
        share: float | None = None,
        limits: Limits | None = None,
    ) -> T:
        """What another task comes to, in a job below this one and on an account below this one's.

        name: unique among those that run at the same time; the task's and a number by default.
        tokens, share: granted to it (`Run.child`); it borrows as it needs by default.
        """
        name = self._child_name(name or task.name)
        granted: dict[str, Any] = {"share": share} if share is not None else {"tokens": tokens or 1}
        with self.run.child(limits=limits, name=name, **granted) as run:
            child = Job(f"{self.path}/{name}", run, self.recorder, self.checkpoint)
            return await child.perform(task)

    def _child_name(self, name: str) -> str:
        self._children[name] += 1
        return name if self._children[name] == 1 else f"{name}-{self._children[name]}"

    async def perform(self, task: Task[T]) -> T:
        """The task's work in this job, with its beginning and its end in the events."""
        async with self._told(task.method):
            return await task.work(self)

    @asynccontextmanager
    async def _told(self, method: str) -> AsyncIterator[None]:
        began, error = self.recorder.seconds, ""
        self.recorder.add(Started(self.path, method, seconds=began))
        try:
            yield
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}".removesuffix(": ")
            raise
        finally:
            now = self.recorder.seconds
            self.recorder.add(Finished(self.path, self.run.spent, now - began, error, seconds=now))

    async def all(self, works: Iterable[Coroutine[Any, Any, T]], *, at_once: int = 8) -> list[T]:
        """The results in order, at most `at_once` at a time. The first failure cancels the others and is raised."""
        turns = asyncio.Semaphore(at_once)

        async def in_turn(work: Coroutine[Any, Any, T]) -> T:
            async with turns:
                return await work

        started = [asyncio.ensure_future(in_turn(work)) for work in works]
        try:
            return list(await asyncio.gather(*started))
        finally:
            for one in started:
                one.cancel()
            await asyncio.gather(*started, return_exceptions=True)


async def _closed(stream: AsyncTextStream) -> None:
    with suppress(ModelError):
        await stream.aclose()
