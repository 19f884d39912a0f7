"""The events of a stream: joined when they are ready together, a ping in silence, an end when nobody reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

import httpx
import pytest

from ctxkit.errors import RemoteUnavailable
from ctxkit.server import ServeOptions, Service
from ctxkit.server.sse import Events
from ctxkit.testing import ScriptedModel
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]


async def counted(most: int, wait: asyncio.Event | None = None, seen: list[int] | None = None) -> AsyncGenerator[dict]:
    for number in range(most):
        if seen is not None:
            seen.append(number)
        yield {"number": number}
    if wait is not None:
        await wait.wait()


async def settled() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def numbers(data: bytes) -> list[int]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line.startswith("data: {")]
    return [json.loads(line)["number"] for line in lines]


def test_what_is_ready_together_is_written_together_and_in_order() -> None:
    async def main() -> list[bytes]:
        events = Events(counted(10))
        await events.begun()
        await settled()
        return [data async for data in events.joined()]

    (data,) = asyncio.run(main())
    assert numbers(data) == list(range(10)) and data.endswith(b"data: [DONE]\n\n")


def test_a_slow_client_holds_the_model_up_and_loses_nothing() -> None:
    async def main() -> tuple[int, list[int]]:
        seen: list[int] = []
        events = Events(counted(500, seen=seen))
        await settled()
        ahead, found = len(seen), list[int]()
        async for data in events.joined():
            found += numbers(data)
        return ahead, found

    ahead, found = asyncio.run(main())
    assert ahead == 64 and found == list(range(500))


def test_silence_is_filled_with_pings() -> None:
    async def main() -> list[bytes]:
        wait = asyncio.Event()
        events, found = Events(counted(1, wait), ping_seconds=0.002), []
        async for data in events.joined():
            found.append(data)
            if len(found) == 4:
                wait.set()
        return found

    first, *pings, last = asyncio.run(main())
    assert numbers(first) == [0] and set(pings) == {b": ping\n\n"} and last.endswith(b"data: [DONE]\n\n")


def test_closing_ends_the_answer() -> None:
    async def main() -> bool:
        ended = asyncio.Event()

        async def endless() -> AsyncGenerator[dict]:
            try:
                yield {"number": 0}
                await asyncio.Event().wait()
            finally:
                ended.set()

        events = Events(endless())
        await events.begun()
        await events.aclose()
        return ended.is_set() and len(asyncio.all_tasks()) == 1

    assert asyncio.run(main())


def test_an_error_before_the_first_event_is_raised_and_one_behind_it_is_an_event() -> None:
    async def failing(first: bool) -> AsyncGenerator[dict]:
        if first:
            yield {"number": 0}
        raise RemoteUnavailable("gone")

    async def main() -> bytes:
        with pytest.raises(RemoteUnavailable):
            await Events(failing(False)).begun()
        events = Events(failing(True))
        await events.begun()
        return b"".join([data async for data in events.joined()])

    data = asyncio.run(main())
    assert numbers(data.partition(b'data: {"error"')[0]) == [0] and b"[DONE]" not in data and b"gone" in data


def test_an_answer_of_nothing_is_an_end() -> None:
    async def main() -> bytes:
        events = Events(counted(0))
        await events.begun()
        return b"".join([data async for data in events.joined()])

    assert asyncio.run(main()) == b"data: [DONE]\n\n"


def test_a_stream_that_takes_too_long_ends_with_its_error(serve: Start) -> None:
    class Slow(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            answer = super()._answer(prompt, sampling)

            def pieces(told):  # type: ignore[no-untyped-def]
                yield "one "
                told.wait(30)
                return "cancelled"

            answer.pieces = pieces
            return answer

    made = Service({"m": Slow(["x"])}, options=ServeOptions(timeout_seconds=0.3))
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    answer = httpx.post(f"{serve(made).root}/v1/chat/completions", json=body, timeout=30)
    *_, last = [line for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200 and json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
