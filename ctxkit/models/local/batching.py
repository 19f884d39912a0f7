"""Scheduler: answers that are read at the same time share the engine's forward passes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from torch import Tensor

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies.base import Policy

_GATHER_SHARE = 0.1  # of the last pass's time: so long the next one waits for those who were in the last

Stopped = Callable[[], bool]


@dataclass(eq=False)
class _Ask:
    """Somebody's next token, and what became of it."""

    context: KVContext
    token: int
    stopped: Stopped
    thread: int = field(default_factory=threading.get_ident)
    logits: Tensor | None = None
    error: Exception | None = None
    done: bool = False


class Scheduler:
    """Continuous batching without a thread of its own.

    Whoever waits for logits and finds nobody at work runs the next pass, for all who wait; an answer joins and leaves
    between two passes. Nothing is computed that nobody waits for. The next tokens of all who wait are one pass, in the
    order they were asked for; between two such passes there is one turn for a pass of another kind, such as a chunk of
    a prompt, so that reading a long prompt holds up nobody (Orca, OSDI 2022; chunked prefill, arXiv 2308.16369).

    max_batch: the most contexts in one pass.
    """

    def __init__(self, engine: Engine, *, max_batch: int = 32) -> None:
        if max_batch < 1:
            raise ValueError(f"`max_batch` must be at least 1, got {max_batch!r}")
        self.engine = engine
        self.max_batch = max_batch
        self._changed = threading.Condition()
        self._busy = False
        self._tokens_first = True  # whether next tokens go before a waiting turn
        self._asks: list[_Ask] = []
        self._turns: deque[object] = deque()
        self._admission = threading.Lock()
        self._promised: dict[KVContext, int] = {}  # how long each text may become
        self._served: list[_Ask] = []  # the last pass of next tokens: who was in it, when it ended, how long it took
        self._ended = self._took = 0.0

    # --- who is in ---------------------------------------------------------------------------------------------

    @contextmanager
    def admitted(self, ids: Sequence[int], max_tokens: int, policy: Policy | None = None) -> Iterator[KVContext]:
        """A context for a prompt and its answer, as `Engine.begin` gives it; at the end it goes to `Engine.finish`.

        Raises MemoryInsufficient, before anything is computed, where both do not fit beside what others have been
        promised.
        """
        context = self.engine.begin(ids, policy)
        tokens = len(ids) + max_tokens
        try:
            with self._admission:
                # A copy: an answer that is dropped leaves without waiting for a lock.
                others = [(other, most - len(other)) for other, most in list(self._promised.items())]
                self.engine.check(context, tokens - len(context), besides=others)
                self._promised[context] = tokens
            yield context
        finally:
            self._promised.pop(context, None)
            self._served = [ask for ask in self._served if ask.context is not context]
            self.engine.finish(context)

    # --- passes ------------------------------------------------------------------------------------------------

    def prefill(self, ids: Sequence[int], context: KVContext, stopped: Stopped) -> Tensor | None:
        """As `Engine.prefill`, one turn per chunk."""
        return self.engine.prefill(ids, context, stopped=stopped, turn=self.turn)

    def step(self, context: KVContext, token: int, stopped: Stopped = lambda: False) -> Tensor | None:
        """Appends a token, in a pass with others; the logits after it, float32 [vocabulary].

        None where `stopped` said so first. Raises MemoryInsufficient, and the context is as it was.
        """
        ask = _Ask(context, token, stopped)
        with self._changed:
            self._asks.append(ask)
            self._changed.notify_all()
        try:
            while self._leads(ask):
                with self._working():
                    batch = self._gathered()
                    try:
                        self._run(batch)
                    finally:
                        self._put_back(batch)
        finally:
            self._withdraw(ask)
        if ask.error is not None:
            raise ask.error
        return ask.logits

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within it nobody else runs a pass. Turns are given in the order they were asked for."""
        mine = object()
        with self._changed:
            self._turns.append(mine)
            try:
                self._changed.wait_for(lambda: self._may_turn(mine))
                self._busy = self._tokens_first = True
            finally:
                self._turns.remove(mine)
                self._changed.notify_all()  # also where the wait was interrupted: another one may be next
        with self._working():
            yield

    # --- leader and followers ----------------------------------------------------------------------------------

    def _leads(self, ask: _Ask) -> bool:
        """Waits. True: the caller is to run the next pass; False: somebody has answered."""
        with self._changed:
            self._changed.wait_for(lambda: ask.done or self._may_step())
            if ask.done:
                return False
            self._busy, self._tokens_first = True, False
            return True

    def _may_step(self) -> bool:
        return not self._busy and (self._tokens_first or not self._turns)

    def _may_turn(self, mine: object) -> bool:
        return not self._busy and self._turns[0] is mine and not (self._tokens_first and self._asks)

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _gathered(self) -> list[_Ask]:
        """Who is in the next pass: those who wait, once the readers of the last pass had time to come back."""
        with self._changed:
            left = self._ended + _GATHER_SHARE * self._took - monotonic()
            self._changed.wait_for(self._all_back, timeout=left)
            batch = self._asks[: self.max_batch]
            del self._asks[: self.max_batch]
        for ask in batch:
            ask.done = ask.stopped()
        return [ask for ask in batch if not ask.done]

    def _all_back(self) -> bool:
        """Whether everybody of the last pass waits again. The caller's own thread cannot: it is here."""
        here, back = threading.get_ident(), {id(ask.context) for ask in self._asks}
        return all(ask.thread == here or id(ask.context) in back for ask in self._served)

    def _run(self, batch: list[_Ask]) -> None:
        """One pass. Where it fails, each is tried alone, so that only those fail who have to."""
        if not batch:
            return
        started = monotonic()
        try:
            rows = self.engine.step([ask.context for ask in batch], [ask.token for ask in batch])
        except Exception as error:
            self._tell(batch, error)
            return
        self._served, self._ended, self._took = batch, monotonic(), monotonic() - started
        for ask, logits in zip(batch, rows, strict=True):
            ask.logits, ask.done = logits, True

    def _tell(self, batch: list[_Ask], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].error, batch[0].done = error, True
            return
        for ask in batch:
            self._run([ask])

    def _put_back(self, batch: list[_Ask]) -> None:
        """Leaves what has not been answered, because this thread was interrupted, for another one to run."""
        with self._changed:
            self._asks[:0] = [ask for ask in batch if not ask.done]

    def _withdraw(self, ask: _Ask) -> None:
        """After it no pass touches the ask's context, also where waiting for it was interrupted."""
        with self._changed:
            self._changed.wait_for(lambda: ask.done or ask in self._asks)
            if ask in self._asks:
                self._asks.remove(ask)
