"""Task: a method with its inputs, ready to run; and the outcome of a run.

A method (`ChainOfAgents`, `Vote`, ...) makes a Task from its inputs. The task's work is written once, async; the sync
and the streaming faces are here, once for all methods.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ctxkit.context import Amounts, Limits, Run, RunReport
from ctxkit.errors import ModelError
from ctxkit_agents.runtime.checkpoint import Checkpoint
from ctxkit_agents.runtime.events import Event
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.recorder import Recorder
from ctxkit_agents.runtime.trace import Trace

T = TypeVar("T")
Payer = Run | Limits | None
"""Who pays for a run: an account, the limits of a new one, or nobody who says no."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a task came to.

    value: the method's result. trace: what happened. report: what it cost, job by job.
    """

    value: T
    trace: Trace
    report: RunReport

    @property
    def text(self) -> str:
        """The answer: the value's text."""
        return str(getattr(self.value, "text", self.value))

    @property
    def spent(self) -> Amounts:
        """By the whole run, steps from the checkpoint included."""
        return self.report.spent

    @property
    def paid(self) -> Amounts:
        """By this process: without the steps from the checkpoint."""
        mine = [one for one in self.trace.messages if not one.replayed]
        tokens_in, tokens_out = sum(one.tokens_in for one in mine), sum(one.tokens_out for one in mine)
        return Amounts(tokens_in + tokens_out, tokens_in, tokens_out, len(mine))

    @property
    def degraded(self) -> tuple[str, ...]:
        """What was done worse than asked for; empty where all went well."""
        return self.trace.degraded

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> Mapping[str, Any]:
        return {
            "text": self.text,
            "degraded": list(self.degraded),
            "report": self.report.to_dict(),
            "trace": self.trace.to_dict(),
        }

    def _repr_html_(self) -> str:
        return self.trace._repr_html_()


class Task(Generic[T]):
    """A method with its inputs. Nothing happens before `run`, `arun`, `stream` or `astream`; each starts anew.

    name: of its job. method: the class that made it. work: what it does, given a Job.
    trace: of the latest run, also of one that failed.
    """

    def __init__(self, name: str, work: Callable[[Job], Awaitable[T]], *, method: str = "") -> None:
        if not name or "/" in name:
            raise ValueError(f'`name` must be a word without "/", got {name!r}')
        self.name = name
        self.method = method or name
        self.work = work
        self.trace = Trace(())

    def __repr__(self) -> str:
        return f"Task({self.name!r}, method={self.method!r})"

    def run(self, *, paid_by: Payer = None, checkpoint: str | Path | None = None) -> Outcome[T]:
        """Runs to the end.

        paid_by: an account or limits; without, everything is counted and nothing refused.
        checkpoint: a file. Where it holds finished steps of the same run they are not done again.
        Raises what the method raises; Ctrl-C cancels. May be called where an event loop runs already, as in a notebook.
        """
        return _in_a_loop(lambda: self.arun(paid_by=paid_by, checkpoint=checkpoint))

    async def arun(self, *, paid_by: Payer = None, checkpoint: str | Path | None = None) -> Outcome[T]:
        """As `run`. Cancelling it cancels the calls in flight; what they had computed is paid for."""
        return await self._perform(Recorder(), paid_by, checkpoint)

    def stream(
        self, *, paid_by: Payer = None, checkpoint: str | Path | None = None, tokens: bool = False
    ) -> EventStream[T]:
        """The events as they come; `.outcome` is there at the end, and dropping or closing the stream cancels the run.

        tokens: also the pieces of answers.
        """
        return EventStream(lambda hand: self._perform(Recorder(hand, tokens=tokens), paid_by, checkpoint))

    async def astream(
        self, *, paid_by: Payer = None, checkpoint: str | Path | None = None, tokens: bool = False
    ) -> AsyncIterator[Event | Outcome[T]]:
        """The events as they come, and the outcome as the last item. Closing it cancels the run."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        recorder = Recorder(events.put_nowait, tokens=tokens)
        doing = asyncio.ensure_future(self._perform(recorder, paid_by, checkpoint))
        doing.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield await doing
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    async def _perform(self, recorder: Recorder, paid_by: Payer, path: str | Path | None) -> Outcome[T]:
        with Checkpoint(path) if path is not None else nullcontext() as checkpoint:
            account = paid_by if isinstance(paid_by, Run) else Run(paid_by, name=self.name)
            job = Job(self.name, account, recorder, checkpoint)
            try:
                value = await job.perform(self)
            finally:
                self.trace = Trace(recorder.events)
            return Outcome(value, self.trace, account.report())


class EventStream(Generic[T]):
    """The events of a run that goes on in another thread. `outcome` waits for the end."""

    def __init__(self, perform: Callable[[Callable[[Event], None]], Awaitable[Outcome[T]]]) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._running = _Running(perform, self._events)
        self._thread = threading.Thread(target=self._running.main, name="ctxkit-run", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._events.get()
        if event is not None:
            return event
        self._events.put(None)  # also for the next reader
        if (error := self._running.error) is not None and not self._running.cancelled:
            raise error
        raise StopIteration

    @property
    def outcome(self) -> Outcome[T]:
        """The outcome, read to the end if need be. Raises what the run raised, ModelError where it was cancelled."""
        for _ in self:
            pass
        if self._running.outcome is None:
            raise ModelError("the run was cancelled and has no outcome")
        return self._running.outcome

    def close(self) -> None:
        """Cancels the run and waits until it is over."""
        self._running.cancel()
        self._thread.join()

    def __enter__(self) -> EventStream[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if running := getattr(self, "_running", None):
            running.cancel()


class _Running(Generic[T]):
    """One run in a thread of its own. Knows nothing of the stream that reads it, so that a dropped one can go."""

    def __init__(
        self,
        perform: Callable[[Callable[[Event], None]], Awaitable[Outcome[T]]],
        events: queue.SimpleQueue[Event | None],
    ) -> None:
        self._perform = perform
        self._put = events.put
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self.cancelled = False
        self.outcome: Outcome[T] | None = None
        self.error: BaseException | None = None

    def main(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # handed to the reader's thread
            self.error = error
        finally:
            self._put(None)

    async def _main(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(self._perform(self._put))
        with self._lock:
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            if self.cancelled:
                task.cancel()
        try:
            self.outcome = await task
        finally:
            with self._lock:
                self._cancel = None

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = self.outcome is None and self.error is None
            if self._cancel is not None:
                self._cancel()


def _in_a_loop(work: Callable[[], Awaitable[T]]) -> T:
    """The work's result, in a new event loop; in a thread of its own where one runs already."""

    async def main() -> T:
        return await work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    results: list[T] = []
    errors: list[BaseException] = []

    def in_thread() -> None:
        try:
            results.append(asyncio.run(main()))
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=in_thread, name="ctxkit-run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
