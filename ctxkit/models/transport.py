"""KeptTransport: HTTP/1.1 for many streams at once. httpx speaks through it; connections are kept and used again.

httpx's own transport parses each chunk of a body by itself, in Python, which for an answer that comes token by token is
most of the work. Here all that has come is taken at once. Heads are left to h11.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from weakref import WeakKeyDictionary

import h11
import httpx

from ctxkit.models.channel import Channel

_IDLE_SECONDS = 2.0  # below what servers wait (uvicorn: 5): the server must not close while the next request is sent
_MOST_HEAD_BYTES = 1 << 16
_LINE_END = 2  # bytes behind the content of a chunk
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,8})\s*(?:;|$)")
_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_Origin = tuple[str, str, int]
Limits = Mapping[str, float | None]
"""httpx's timeouts of a request, in seconds: connect, write, read."""


class KeptTransport(httpx.AsyncBaseTransport):
    """For the async face only, without proxies and HTTP/2. `aclose` keeps the connections for the next one.

    tls: for https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._idle: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Origin, list[_Kept]]] = WeakKeyDictionary()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx's transport errors."""
        url, limits = request.url, request.extensions.get("timeout", {})
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        body = await request.aread()
        while True:
            kept = self._taken(origin)
            connection = kept or await self._opened(origin, limits)
            try:
                head, begun = await connection.asked(request, body, limits)
            except BaseException as error:
                connection.close()
                if kept is not None and not connection.answered and isinstance(error, _CLOSED):
                    continue  # the server had closed it, and has not answered to anything
                raise
            stream = _Body(connection, head, begun, limits, partial(self._given_back, origin, connection))
            return httpx.Response(head.status_code, headers=list(head.headers), stream=stream)

    async def aclose(self) -> None:
        pass

    def _taken(self, origin: _Origin) -> _Kept | None:
        idle = self._idle.get(asyncio.get_running_loop(), {}).get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    def _given_back(self, origin: _Origin, connection: _Kept) -> None:
        connection.idle_since = time.monotonic()
        self._idle.setdefault(asyncio.get_running_loop(), {}).setdefault(origin, []).append(connection)

    async def _opened(self, origin: _Origin, limits: Limits) -> _Kept:
        scheme, host, port = origin
        tls = (self._tls or ssl.create_default_context()) if scheme == "https" else None
        return _Kept(await Channel.opened(host, port, tls, limits.get("connect")))


class _Kept:
    """One connection. answered: the first byte of the answer has come."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.idle_since = 0.0
        self.answered = False

    @property
    def usable(self) -> bool:
        return time.monotonic() - self.idle_since < _IDLE_SECONDS and self._channel.idle

    def close(self) -> None:
        self._channel.close()

    async def asked(self, request: httpx.Request, body: bytes, limits: Limits) -> tuple[h11.Response, bytes]:
        """The head of the answer, and what came of its body with it. Raises httpx's transport errors."""
        self.answered = False
        wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        events = [head, h11.Data(data=body), h11.EndOfMessage()] if body else [head, h11.EndOfMessage()]
        await self._channel.write(b"".join(wire.send(event) or b"" for event in events), limits.get("write"))
        while True:
            wire.receive_data(await self.read(limits))
            try:
                while isinstance(found := wire.next_event(), h11.InformationalResponse):
                    pass  # the answer may follow it at once
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if isinstance(found, h11.Response):
                return found, wire.trailing_data[0]
            if isinstance(found, h11.ConnectionClosed):
                raise httpx.RemoteProtocolError("the server closed the connection without an answer")

    async def read(self, limits: Limits) -> bytes:
        """What has come; empty at the end. Raises httpx's transport errors."""
        data = await self._channel.read(limits.get("read"))
        self.answered = self.answered or bool(data)
        return data


class _Body(httpx.AsyncByteStream):
    """The body of an answer. A connection whose answer was read to its end is given back; else it is closed.

    begun: what came of it with the head.
    """

    def __init__(
        self, connection: _Kept, head: h11.Response, begun: bytes, limits: Limits, give_back: Callable[[], None]
    ) -> None:
        self._connection, self._begun, self._limits, self._give_back = connection, begun, limits, give_back
        headers = dict(head.headers)
        self._keeps = head.http_version == b"1.1" and b"close" not in headers.get(b"connection", b"").lower()
        self._decoder = _decoder(head.status_code, headers)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder, data = self._decoder, self._begun
        while True:
            if content := decoder.feed(data):
                yield content
            if decoder.done:
                return
            data = await self._connection.read(self._limits)
            if not data:
                decoder.end()
                return

    async def aclose(self) -> None:
        if self._decoder.done and self._keeps:
            self._give_back()
        else:
            self._connection.close()


class Sized:
    """A body of so many bytes; None for one that ends with the connection."""

    def __init__(self, length: int | None) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        content = data[: self._left]
        self._left -= len(content)
        return content

    def end(self) -> None:
        """The connection has ended. Raises httpx.RemoteProtocolError where the body has not."""
        if self._left:
            raise httpx.RemoteProtocolError(f"the connection ended {self._left:,} bytes before the answer")


class Chunked:
    """A body in chunks (RFC 9112, section 7.1), cut anywhere: all the content that is there, at once."""

    def __init__(self) -> None:
        self.done = False
        self._buffer = b""
        self._left = 0  # of a chunk, with the line end behind it
        self._trailing = False

    def feed(self, data: bytes) -> bytes:
        """Raises httpx.RemoteProtocolError for what are no chunks."""
        buffer, at, found = self._buffer + data, 0, list[bytes]()
        while at < len(buffer) and not self.done:
            if self._left:
                taken = buffer[at : at + self._left]
                content = max(self._left - _LINE_END, 0)
                found.append(taken[:content])
                at, self._left = at + len(taken), self._left - len(taken)
                continue
            end = buffer.find(b"\n", at)
            if end < 0:
                break
            self._line(buffer[at:end].rstrip(b"\r"))
            at = end + 1
        self._buffer = buffer[at:]
        if len(self._buffer) > _MOST_HEAD_BYTES:
            raise httpx.RemoteProtocolError("a chunk's head is too long")
        return b"".join(found)

    def end(self) -> None:
        """The connection has ended. Raises httpx.RemoteProtocolError where the body has not."""
        raise httpx.RemoteProtocolError("the connection ended in the middle of the answer")

    def _line(self, line: bytes) -> None:
        if self._trailing:
            self.done = not line
            return
        if not (size := _CHUNK_SIZE.match(line)):
            raise httpx.RemoteProtocolError(f"not the size of a chunk: {line[:40]!r}")
        length = int(size[1], 16)
        self._trailing = length == 0
        self._left = length + _LINE_END if length else 0


def _decoder(status: int, headers: Mapping[bytes, bytes]) -> Sized | Chunked:
    if status in (204, 304):
        return Sized(0)
    if headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        return Chunked()
    return Sized(int(headers[b"content-length"]) if b"content-length" in headers else None)
