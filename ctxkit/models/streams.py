"""Streams: the sync and the async face of an answer that is made piece by piece.

The work is written once, as a generator (`PieceSource.pieces`). The sync face pulls it; the async face pulls it in a
worker thread, one piece at a time. Nothing runs ahead of its reader, so a stream that is dropped stops computing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Protocol

from ctxkit.errors import ModelError
from ctxkit.protocols import Reply, SoFar, Telling

CANCELLED = "cancelled"
"""Finish reason of an answer that nobody waited for."""

_END = object()


class _Replying(Protocol):
    def reply(self, text: str, finish_reason: str) -> Reply: ...


class PieceSource(Protocol):
    """One answer in the making. It may be `Telling`."""

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        """Yields the text, returns the finish reason. Looks at `stopped` between steps that take long."""
        ...

    def reply(self, text: str, finish_reason: str) -> Reply:
        """The finished answer, given the text that was handed out."""
        ...


class AsyncPieceSource(Protocol):
    """As PieceSource, for a face that waits without a thread."""

    def apieces(self) -> AsyncGenerator[str, None]:
        """Yields the text."""
        ...

    def reason(self) -> str:
        """The finish reason, once `apieces` has ended."""
        ...

    def reply(self, text: str, finish_reason: str) -> Reply:
        """As PieceSource's."""
        ...


class Collected:
    """The text that a stream has handed out, and the reply that it becomes when the stream ends.

    source: makes the finished answer, given the text and the finish reason.
    """

    def __init__(self, source: _Replying) -> None:
        self._make_reply = source.reply
        self._telling = source if isinstance(source, Telling) else None
        self._text: list[str] = []
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The finished answer. Raises ModelError while the stream has not ended."""
        if self._reply is None:
            raise ModelError("the stream has not ended; read it to its end or close it first")
        return self._reply

    def so_far(self) -> SoFar:
        """What has come besides the text, as far as the source says."""
        return SoFar() if self._telling is None else self._telling.so_far()

    def _finish(self, reason: str) -> None:
        if self._reply is None:
            self._reply = self._make_reply("".join(self._text), reason)


class PieceStream(Collected):
    """`TextStream` over a PieceSource. Not for several threads at once, except `stop`."""

    def __init__(self, source: PieceSource) -> None:
        super().__init__(source)
        self._stopped = threading.Event()
        self._pieces = source.pieces(self._stopped)

    def __iter__(self) -> PieceStream:
        return self

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except StopIteration as end:
            self._finish(end.value or CANCELLED)
            raise
        self._text.append(piece)
        return piece

    def stop(self) -> None:
        """Asks a step that runs in another thread to end early."""
        self._stopped.set()

    def close(self) -> None:
        """Stops computing. `reply` then holds what came so far, with finish reason "cancelled"."""
        self.stop()
        self._pieces.close()
        self._finish(CANCELLED)


class AsyncPieceStream:
    """`AsyncTextStream` over a PieceStream whose steps run in worker threads."""

    def __init__(self, stream: PieceStream) -> None:
        self._stream = stream
        self._step: asyncio.Future[object] | None = None

    def __aiter__(self) -> AsyncPieceStream:
        return self

    async def __anext__(self) -> str:
        self._step = asyncio.get_running_loop().run_in_executor(None, next, self._stream, _END)
        try:
            piece = await asyncio.shield(self._step)
        except asyncio.CancelledError:
            self._stream.stop()  # the thread ends its step early; nobody asks for another
            self._step.add_done_callback(_forget)
            raise
        if piece is _END:
            raise StopAsyncIteration
        return str(piece)

    @property
    def reply(self) -> Reply:
        """The finished answer. Raises ModelError while the stream has not ended."""
        return self._stream.reply

    def so_far(self) -> SoFar:
        """As the stream's. Not while a piece is being made."""
        return self._stream.so_far()

    async def aclose(self) -> None:
        """Stops computing, after the step that is running now."""
        self._stream.stop()
        if self._step is not None and not self._step.done():
            await asyncio.wait([self._step])
        self._stream.close()

    def __del__(self) -> None:
        self._stream.stop()


def _forget(step: asyncio.Future[object]) -> None:
    """Looks at the outcome of a step nobody waits for, so that asyncio does not report it as lost."""
    if not step.cancelled():
        step.exception()


def drain(stream: PieceStream) -> Reply:
    """Reads a stream to its end."""
    for _ in stream:
        pass
    return stream.reply


async def adrain(stream: AsyncPieceStream) -> Reply:
    """Reads a stream to its end; cancelling this stops the computation."""
    async for _ in stream:
        pass
    return stream.reply
