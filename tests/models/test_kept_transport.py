"""KeptTransport: bodies cut anywhere, connections used again, and httpx's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.models.transport import Chunked, KeptTransport, Sized

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def in_chunks(parts: list[bytes]) -> bytes:
    return b"".join(b"%x;note=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\ntrailer: 1\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_chunks_cut_anywhere_are_the_body(parts: list[bytes], cuts: list[int]) -> None:
    wire, decoder = in_chunks(parts), Chunked()
    at = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    found = b"".join(decoder.feed(wire[start:end]) for start, end in zip(at, at[1:], strict=False))
    assert found == b"".join(parts) and decoder.done


@pytest.mark.parametrize("wrong", [b"zz\r\n", b"-1\r\n", b"\r\n", b"fffffffff\r\n", b"1" * (1 << 17)])
def test_what_are_no_chunks_is_refused(wrong: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        Chunked().feed(wrong)


def test_a_body_that_ends_too_early_is_an_error() -> None:
    for decoder in (Sized(5), Chunked()):
        decoder.feed(b"3\r\n")
        with pytest.raises(httpx.RemoteProtocolError):
            decoder.end()
    Sized(None).end()


class Server:
    """Answers each request by `answer(number of the request, writer)`. connections: how many came."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.connections, self.requests = answer, 0, 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *given: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0"
                )
                await reader.readexactly(int(length.partition(b":")[2]))
                self.requests += 1
                await self.answer(self.requests - 1, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def asked(answer: Answer, requests: int = 1, **settings: Any) -> tuple[list[bytes], Server]:
    """The bodies of so many requests, each by a client of its own."""

    async def main() -> tuple[list[bytes], Server]:
        transport, found = KeptTransport(), []
        async with Server(answer) as server:
            for _ in range(requests):
                async with httpx.AsyncClient(transport=transport, **settings) as client:
                    found.append((await client.post(server.url, json={"a": 1})).content)
        return found, server

    return asyncio.run(main())


def test_a_connection_is_used_again() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(
            OK if number % 2 else b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + in_chunks([b"ok"])
        )

    found, server = asked(answer, 4)
    assert found == [b"ok"] * 4 and server.connections == 1


@pytest.mark.parametrize("head", [b"connection: close\r\ncontent-length: 2\r\n", b"connection: close\r\n"])
def test_a_connection_that_the_server_closes_is_not(head: bytes) -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nok")
        writer.close()

    found, server = asked(answer, 3)
    assert found == [b"ok"] * 3 and server.connections == 3


def test_a_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            writer.transport.abort()  # instead of an answer, on a connection that has answered before
        else:
            writer.write(OK)

    found, server = asked(answer, 2)
    assert found == [b"ok"] * 2 and (server.connections, server.requests) == (2, 3)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", httpx.ReadTimeout),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12", httpx.ReadTimeout),
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
    ],
)
def test_failures_are_httpxs(sent: bytes, error: type[Exception]) -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    with pytest.raises(error):
        asked(answer, timeout=0.1)


def test_an_answer_that_never_comes_and_one_that_is_cut() -> None:
    async def nothing(number: int, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def half(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12")
        writer.close()

    for answer in (nothing, half):
        with pytest.raises(httpx.RemoteProtocolError):
            asked(answer)


def test_interim_heads_are_skipped_and_no_content_is_none() -> None:
    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + (OK if number else b"HTTP/1.1 204 No Content\r\n\r\n"))

    found, server = asked(answer, 2)
    assert found == [b"", b"ok"] and server.connections == 1


def test_nobody_there_is_a_connect_error() -> None:
    async def main() -> None:
        async with Server(nobody) as server:
            pass
        async with httpx.AsyncClient(transport=KeptTransport()) as client:
            await client.get(server.url)

    async def nobody(number: int, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    with pytest.raises(httpx.ConnectError):
        asyncio.run(main())
