"""What `ctxkit serve` adds to the server that it stands in front of, and what many requests leave behind.

    PYTHONPATH=. python benchmarks/server/load.py --streams 200 --seconds 20
    PYTHONPATH=. python benchmarks/server/load.py --disconnects 1000
    PYTHONPATH=. python benchmarks/server/load.py --requests 10000
    PYTHONPATH=. python benchmarks/server/load.py --relay

The upstream is `upstream.py`: a token every 10 ms to each stream. Rounds alternate: the streams ask it directly, then
through `ctxkit serve --upstream`; all three processes share this machine. Added latency is the difference of the
quantiles of the two. Every token says whose it is and its number: a token of another stream, a lost one or one out of
order is an error. The server's processor time and memory are the kernel's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

from processes import Process, relay, serve, upstream

_TOKEN = re.compile(rb'"content":\s?"([^":]+):(\d+) "|"content":\s?"((?:[^":]+:\d+ )+)"')
_NAMES = cycle(range(2000))  # again and again: the counters remember the words that they have seen, up to a bound


@dataclass
class Measured:
    """first: seconds to the first token. between: mean seconds between tokens of an answer."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    tokens: int = 0


class Client:
    """One connection that asks for one answer after the other."""

    def __init__(self, url: str, model: str) -> None:
        split = urlsplit(url)
        self.host, self.port, self.model = split.hostname or "", split.port or 0, model
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, tokens: int, into: Measured, stop_after: int | None = None) -> None:
        """One streamed answer, read and checked. stop_after: close the connection after so many tokens."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        name, began = f"s{next(_NAMES)}", time.perf_counter()
        body = {"model": self.model, "stream": True, "messages": [{"role": "user", "content": f"{name} {tokens}"}]}
        content = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        got, rest, first, last, whole = 0, b"", 0.0, 0.0, False
        while not whole:
            data = await self._reader.read(1 << 16)
            last = time.perf_counter()
            if not data:
                break
            ready, cut, rest = (rest + data).rpartition(b"\n\n")
            whole = b"data: [DONE]" in ready or rest.endswith(b"0\r\n\r\n") and b"[DONE]" in rest
            for whose, number in _tokens_of(ready):
                if whose != name or number != got:
                    into.errors.append(f"{name} was given {whose}:{number} for {got}")
                got, first = got + 1, first or last
            rest = rest if cut else ready + rest
            if stop_after is not None and got >= stop_after:
                self.close()
                return
        if got != tokens:
            into.errors.append(f"{name} was given {got} tokens of {tokens}: {(ready + rest)[-300:]!r}")
            self.close()
            return
        await self._to_the_end(rest)
        into.tokens += got
        into.first.append(first - began)
        into.between.append((last - first) / max(got - 1, 1))

    async def _to_the_end(self, rest: bytes) -> None:
        """The last, empty chunk of the answer."""
        while not rest.endswith(b"0\r\n\r\n") and (data := await self._reader.read(1 << 16)):
            rest += data

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tokens_of(events: bytes) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for whose, number, several in _TOKEN.findall(events):
        if several:
            found += [(one.rpartition(":")[0], int(one.rpartition(":")[2])) for one in several.decode().split()]
        else:
            found.append((whose.decode(), int(number)))
    return found


async def _round(url: str, model: str, streams: int, tokens: int, seconds: float) -> Measured:
    """So many clients at once, each asking again until the time is over."""
    measured, until = Measured(), time.perf_counter() + seconds

    async def one(number: int) -> None:
        client = Client(url, model)
        await asyncio.sleep(number / streams * 0.5)  # not all in the same moment
        while time.perf_counter() < until and len(measured.errors) < 20:
            await client.ask(tokens, measured)
        client.close()

    await asyncio.gather(*(one(number) for number in range(streams)))
    return measured


def _quantile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] * 1000 if values else float("nan")


def _line(name: str, found: Measured) -> str:
    shown = [_quantile(found.first, 0.5), _quantile(found.first, 0.99), statistics.fmean(found.between or [0]) * 1000]
    first50, first99, between = shown
    return (
        f"{name:8} {len(found.first):6,} answers {found.tokens:9,} tokens  first p50 {first50:7.1f} ms  "
        f"p99 {first99:7.1f} ms  {between:6.2f} ms a token  {len(found.errors)} errors"
    )


def compare(given: argparse.Namespace, behind: Process, front: Process) -> None:
    direct, through = Measured(), Measured()
    asyncio.run(_round(front.url, "scripted", min(given.streams, 20), 10, 1.0))  # everything is loaded
    cpu, memory = 0.0, [front.rss_mib]
    for _ in range(given.rounds):
        for url, into in ((behind.url, direct), (front.url, through)):
            before = front.cpu_seconds
            found = asyncio.run(_round(url, "scripted", given.streams, given.tokens, given.seconds / given.rounds))
            if into is through:
                cpu += front.cpu_seconds - before
                memory.append(front.rss_mib)
            for name in ("first", "between", "errors"):
                getattr(into, name).extend(getattr(found, name))
            into.tokens += found.tokens
    print(
        f"{given.streams} streams, {given.seconds:g} s each way in {given.rounds} rounds, load {os.getloadavg()[0]:.1f}"
    )
    print(_line("direct", direct))
    print(_line("through", through))
    added = [_quantile(through.first, share) - _quantile(direct.first, share) for share in (0.5, 0.99)]
    each = statistics.fmean(through.between or [0]) - statistics.fmean(direct.between or [0])
    print(f"added    first token p50 {added[0]:.1f} ms, p99 {added[1]:.1f} ms; {each * 1000:.2f} ms a token")
    print(
        f"server   {cpu / max(through.tokens, 1) * 1e6:.0f} us of CPU a token, "
        f"MiB {' '.join(f'{one:.0f}' for one in memory)}"
    )
    for error in [*direct.errors, *through.errors][:5]:
        print("error   ", error)


def disconnect(given: argparse.Namespace, behind: Process, front: Process) -> None:
    """Clients that go away at a random token; then nothing may be left of them."""

    async def main() -> None:
        drawn, left = random.Random(given.seed), given.disconnects

        async def one() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await Client(front.url, "scripted").ask(given.tokens, Measured(), drawn.randint(0, given.tokens // 2))

        await asyncio.gather(*(one() for _ in range(given.streams)))

    asyncio.run(main())
    waited = time.monotonic()
    while (left := _left(behind, front)) and time.monotonic() - waited < 30:
        time.sleep(0.1)
    print(f"{given.disconnects} disconnects; left after {time.monotonic() - waited:.1f} s: {left or 'nothing'}")


def _left(behind: Process, front: Process) -> dict[str, float]:
    with urllib.request.urlopen(f"{behind.url}/stats", timeout=10) as answer:
        streams = json.load(answer)["streams"]
    with urllib.request.urlopen(f"{front.url}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    gauges = {name: float(value) for name, value in re.findall(r"^(ctxkit_requests_\w+ing) (\S+)$", told, re.M)}
    return {name: value for name, value in {"upstream_streams": streams, **gauges}.items() if value}


def many(given: argparse.Namespace, front: Process) -> None:
    """Short requests, and the server's memory after each tenth of them."""
    memory = [front.rss_mib]

    async def main(each: int) -> Measured:
        measured, left = Measured(), each

        async def one() -> None:
            nonlocal left
            client = Client(front.url, "scripted")
            while left > 0:
                left -= 1
                await client.ask(2, measured)
            client.close()

        await asyncio.gather(*(one() for _ in range(min(given.streams, 20))))
        return measured

    errors, before = 0, front.cpu_seconds
    for _ in range(10):
        errors += len(asyncio.run(main(given.requests // 10)).errors)
        memory.append(front.rss_mib)
    each = (front.cpu_seconds - before) / given.requests * 1000
    shown = " ".join(f"{one:.1f}" for one in memory)
    print(f"{given.requests} requests, {errors} errors, {each:.2f} ms of CPU a request, MiB {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="directly, and as many through the server")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=100, help="of an answer")
    parser.add_argument("--interval-ms", type=float, default=10.0)
    parser.add_argument("--disconnects", type=int, default=0)
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--relay", action="store_true", help="in place of the server, the least that there could be")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--profile", type=Path, help="profile the server into this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, upstream(given.interval_ms) as behind:
        arguments = [
            "scripted",
            "--upstream",
            f"{behind.url}/v1",
            "--window",
            "8192",
            "--store",
            f"{folder}/sessions.db",
            "--workers",
            str(given.workers),
        ]
        running = str(given.streams + 50)
        between = (
            relay(behind, Path(folder))
            if given.relay
            else serve(*arguments, "--max-running", running, profile=given.profile)
        )
        with between as front:
            if given.disconnects:
                disconnect(given, behind, front)
            elif given.requests:
                many(given, front)
            else:
                compare(given, behind, front)


if __name__ == "__main__":
    main()
