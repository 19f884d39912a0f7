"""Channel: the bytes of one connection. As asyncio's streams, without what these cost for each small piece.

An answer that comes token by token is read thousands of times. Here a read that finds bytes is a list taken over, one
that waits is one future, and its time limit is one timer for the whole connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import cast

import httpx

_MOST_UNREAD_BYTES = 1 << 18  # then the server is let wait


class Channel(asyncio.Protocol):
    """One reader and one writer at a time. Raises httpx's transport errors."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._ended = self._paused = False
        self._error: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None  # a reader waits for it
        self._room: asyncio.Future[None] | None = None  # a writer waits for it
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def opened(cls, host: str, port: int, tls: ssl.SSLContext | None, seconds: float | None) -> Channel:
        """tls: for https. Raises httpx.ConnectError, httpx.ConnectTimeout."""
        try:
            async with asyncio.timeout(seconds):
                _, channel = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=tls)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("it took too long") from error
        except OSError as error:
            raise httpx.ConnectError(_reason(error)) from error
        return channel

    @property
    def idle(self) -> bool:
        """Whether it is open, and nothing came that nobody asked for."""
        return not (self._ended or self._unread or self._transport.is_closing())

    async def write(self, data: bytes, seconds: float | None) -> None:
        """Hands the bytes over; waits while the server takes no more. Raises httpx.WriteError, httpx.WriteTimeout."""
        if self._ended:
            raise httpx.WriteError(self._why())
        self._transport.write(data)
        if self._room is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._room)
        except TimeoutError as error:
            raise httpx.WriteTimeout("it took too long") from error
        if self._ended:
            raise httpx.WriteError(self._why())

    async def read(self, seconds: float | None) -> bytes:
        """What has come, at least one byte; empty at the end. Raises httpx.ReadError, httpx.ReadTimeout."""
        if not self._unread and not self._ended:
            await self._wait(seconds)
        if self._unread:
            data = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
            self._unread, self._unread_bytes = [], 0
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            return data
        if self._error is not None:
            raise httpx.ReadError(self._why())
        return b""

    def close(self) -> None:
        """At once; what was not sent yet is not."""
        self._stop_timer()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _MOST_UNREAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._arrival)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        _wake(self._room)
        self._room = None

    def _end(self, error: Exception | None) -> None:
        self._ended, self._error = True, self._error or error
        _wake(self._arrival)
        _wake(self._room)
        self._stop_timer()

    async def _wait(self, seconds: float | None) -> None:
        """Until something came, or the end did."""
        self._arrival = self._loop.create_future()
        self._deadline = float("inf") if seconds is None else self._loop.time() + seconds
        if seconds is not None and (self._timer is None or self._timer.when() > self._deadline):
            self._stop_timer()
            self._timer = self._loop.call_at(self._deadline, self._late)
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _late(self) -> None:
        """Of a reader that began to wait since the timer was set, the time is not over yet."""
        self._timer = None
        if self._arrival is None or self._arrival.done():
            return
        if self._loop.time() < self._deadline:
            if self._deadline < float("inf"):
                self._timer = self._loop.call_at(self._deadline, self._late)
            return
        self._arrival.set_exception(httpx.ReadTimeout("it took too long"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _why(self) -> str:
        return _reason(self._error) if isinstance(self._error, OSError) else "the connection was closed"


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _reason(error: OSError) -> str:
    """What the system says, without the address that asyncio adds."""
    if isinstance(error, ConnectionError | TimeoutError) and error.errno:
        return os.strerror(error.errno)
    return error.strerror if isinstance(error, socket.gaierror | ssl.SSLError) and error.strerror else "no connection"
