"""A scripted OpenAI-compatible server in a process of its own, that costs next to nothing.

    python benchmarks/server/upstream.py --interval-ms 10

Prints its address. An answer to a message `ID COUNT` is COUNT tokens `ID:0 ID:1 ...`, one every interval, whoever else
is answered: each token says whose it is and where it stands. `GET /stats` tells the open streams and connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from contextlib import suppress
from typing import Any

_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TICK_SECONDS = 0.001
_DEFAULT_TOKENS = 3


class Streaming:
    """An answer that is being given. began: by the loop's clock."""

    def __init__(self, transport: asyncio.Transport, name: str, tokens: int, read: int, began: float) -> None:
        self.transport, self.name, self.tokens, self.read, self.began = transport, name, tokens, read, began
        self.given = 0

    def advance(self, now: float, interval: float) -> bool:
        """Sends what is due; whether that was all."""
        due = min(int((now - self.began) / interval), self.tokens)
        events = b"".join(self._token(number) for number in range(self.given, due))
        self.given = due
        if due == self.tokens:
            events += self._end()
        if events:
            self.transport.write(b"%x\r\n%b\r\n" % (len(events), events))
        if due == self.tokens:
            self.transport.write(b"0\r\n\r\n")
        return due == self.tokens

    def _token(self, number: int) -> bytes:
        return _event(
            {"choices": [{"index": 0, "delta": {"content": f"{self.name}:{number} "}, "finish_reason": None}]}
        )

    def _end(self) -> bytes:
        last = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        return last + _event({"choices": [], "usage": _usage(self.read, self.tokens)}) + b"data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


def _usage(read: int, said: int) -> dict[str, int]:
    """read: bytes of the request, which are more than its tokens: nothing was cut."""
    return {"prompt_tokens": read, "completion_tokens": said}


class Upstream:
    """What the connections share."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.streams: set[Streaming] = set()
        self.connections = 0

    async def tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for one in list(self.streams):
                if one.transport.is_closing() or one.advance(now, self.interval):
                    self.streams.discard(one)
            await asyncio.sleep(_TICK_SECONDS)


class Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.buffer = b""
        self.streaming: Streaming | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.upstream.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream.connections -= 1
        if self.streaming is not None:
            self.upstream.streams.discard(self.streaming)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
            )
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self._answer(head.split(b" ", 2)[1], rest[:length])

    def _answer(self, path: bytes, body: bytes) -> None:
        if path == b"/stats":
            self._whole({"streams": len(self.upstream.streams), "connections": self.upstream.connections})
        elif path.endswith(b"/models"):
            self._whole({"data": [{"id": "scripted", "max_model_len": 8192}]})
        else:
            self._chat(json.loads(body), len(body))

    def _chat(self, asked: dict[str, Any], read: int) -> None:
        name, _, count = str(asked["messages"][-1]["content"]).partition(" ")
        tokens = int(count) if count.isdigit() else _DEFAULT_TOKENS
        if asked.get("stream"):
            self.transport.write(_STREAM_HEAD)
            began = asyncio.get_running_loop().time()
            self.streaming = Streaming(self.transport, name, tokens, read, began)
            self.upstream.streams.add(self.streaming)
            return
        text = "".join(f"{name}:{number} " for number in range(tokens))
        said = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._whole({"choices": [said], "usage": _usage(read, tokens)})

    def _whole(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self.transport.write(head.encode() + content)


async def main(interval: float) -> None:
    upstream = Upstream(interval)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await upstream.tick()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval-ms", type=float, default=10.0, help="between two tokens of an answer")
    given = parser.parse_args()
    if not math.isfinite(given.interval_ms) or given.interval_ms <= 0:
        parser.error("--interval-ms must be above 0")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(given.interval_ms / 1000))
