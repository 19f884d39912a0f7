"""Gate: how many requests are answered at once, and whose turn is next. Fair to keys: they take turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ctxkit.server.problems import Problem, too_many


class Gate:
    """max_running: at the same time. max_waiting, max_waiting_per_key: beyond that the request is refused with 429.

    Of several keys that wait, each gets a turn before one gets its second; a key's own requests go in order.
    For one event loop.
    """

    def __init__(self, max_running: int, max_waiting: int, max_waiting_per_key: int) -> None:
        self.max_running = max_running
        self.max_waiting = max_waiting
        self.max_waiting_per_key = max_waiting_per_key
        self.running = 0
        self.closed = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Waits for a turn, and holds it. Raises Problem 429 where too many wait, 503 where the server is closing."""
        await self._enter(key)
        try:
            yield
        finally:
            self.running -= 1
            self._next()

    async def _enter(self, key: str) -> None:
        if self.closed:
            raise Problem(503, "the server is shutting down", type="server_error", code="shutting_down")
        if self.running < self.max_running and not self._waiting:
            self.running += 1
            return
        mine = self._waiting.get(key, ())
        if self.waiting >= self.max_waiting or len(mine) >= self.max_waiting_per_key:
            raise too_many(f"{self.waiting:,} requests are waiting, {len(mine):,} of them yours; try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the turn in the same moment
                self.running -= 1
                self._next()
            else:
                self._forget(key, turn)
            raise

    def _next(self) -> None:
        while self._waiting and self.running < self.max_running:
            key, queue = next(iter(self._waiting.items()))
            del self._waiting[key]
            turn = queue.popleft()
            if queue:
                self._waiting[key] = queue  # behind the other keys
            if not turn.done():
                self.running += 1
                turn.set_result(None)

    def _forget(self, key: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[key]
