"""Several servers of one model: who is asked, who is left out, and what happens to a request whose server fails."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ctxkit.errors import (
    ContextTruncatedByServer,
    RemoteError,
    RemoteRejected,
    RemoteTimeout,
    RemoteUnavailable,
)
from ctxkit.models import RemoteModel
from ctxkit.models.fleet import Fleet
from ctxkit.models.replicas import Replicas, affinity_key
from ctxkit.models.requests import as_request
from ctxkit.models.transport import KeptTransport
from ctxkit.models.wire import RetryLater
from ctxkit.protocols import Model, Reply
from tests.faulty import Act, FaultyServer, begins, dies, faulty, garbage, hangs, refuses, says

Served = Callable[..., tuple[Replicas, list[FaultyServer]]]
Ask = Callable[[Replicas, Any], Reply]


@pytest.fixture
def served() -> Iterator[Served]:
    """Replicas in front of servers that act so; nobody looks after those that are down, unless a test says so."""
    with ExitStack() as stack:

        def serve(*acts: Act, retry_seconds: float = 3600, **settings: Any) -> tuple[Replicas, list[FaultyServer]]:
            servers = [stack.enter_context(faulty(act)) for act in acts]
            made = [remote(server.url, **settings) for server in servers]
            replicas = Replicas(made, retry_seconds=retry_seconds, most_retry_seconds=3600)
            stack.callback(replicas.close)
            return replicas, servers

        yield serve


def remote(url: str, **settings: Any) -> RemoteModel:
    settings = {"window_tokens": 1000, "max_retries": 0, "async_transport": KeptTransport(), **settings}
    return RemoteModel(url, "m", **settings)


def streamed(replicas: Replicas, prompt: Any) -> Reply:
    stream = replicas.stream(prompt)
    assert "".join(stream) == stream.reply.text
    return stream.reply


def astreamed(replicas: Replicas, prompt: Any) -> Reply:
    async def main() -> Reply:
        stream = replicas.astream(prompt)
        assert "".join([piece async for piece in stream]) == stream.reply.text
        return stream.reply

    return asyncio.run(main())


@pytest.fixture(params=[Replicas.generate, lambda *given: asyncio.run(Replicas.agenerate(*given)), streamed, astreamed])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each face."""
    return request.param


def first_of(replicas: Replicas, prompt: str) -> int:
    """The server that a conversation goes to while all are idle."""
    taken = replicas.fleet.take(affinity_key(as_request(prompt)))
    replicas.fleet.give_back(taken)
    return taken.index


def conversation_of(replicas: Replicas, index: int) -> str:
    """A conversation that goes to that server."""
    return next(text for text in map(str, range(1000)) if first_of(replicas, text) == index)


def unreachable() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def states(replicas: Replicas) -> list[str]:
    return [one.state for one in replicas.states]


def test_they_are_a_model_with_the_smallest_window() -> None:
    replicas = Replicas([remote(unreachable(), window_tokens=tokens) for tokens in (300, 200)])
    assert isinstance(replicas, Model) and (replicas.name, replicas.window_tokens) == ("m", 200)
    with pytest.raises(ValueError, match="at least one"):
        Replicas([])
    with pytest.raises(ValueError, match="retry_seconds"):
        Replicas([remote(unreachable())], retry_seconds=0)


def test_an_answer_is_that_of_the_server(served: Served, ask: Ask) -> None:
    replicas, servers = served(says("one ", "two", prompt_tokens=7))
    reply = ask(replicas, "hello")
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("one two", "stop", 7, 2)
    assert [one.running for one in replicas.states] == [0] and len(servers[0].seen) == 1


def test_a_conversation_stays_with_its_server_and_others_are_spread(served: Served) -> None:
    replicas, _ = served(*[says("x")] * 3)
    first = {"role": "user", "content": "which?"}
    turns = [[first], [first, {"role": "assistant", "content": "x"}, {"role": "user", "content": "and then?"}]]
    assert len({affinity_key(as_request(turn)) for turn in turns}) == 1
    assert {first_of(replicas, str(number)) for number in range(60)} == {0, 1, 2}


def test_a_server_that_is_much_busier_gives_its_conversations_away() -> None:
    fleet = Fleet(["a", "b", "c"], probe=lambda model: None)
    taken = [fleet.take(b"the same").index for _ in range(30)]
    running = [one.running for one in fleet.states()]
    assert sum(running) == 30 and max(running) <= 1.25 * 30 / 3 + 1 and min(running) > 0
    assert taken[0] == max(range(3), key=lambda index: running[index])


@pytest.mark.parametrize(
    ("act", "error"), [(dies, RemoteUnavailable), (garbage, RemoteError), (refuses(500, {"message": "x"}), RemoteError)]
)
def test_what_fails_before_the_first_piece_goes_elsewhere(served: Served, ask: Ask, act: Act, error: type) -> None:
    replicas, servers = served(act, says("saved"))
    reply = ask(replicas, conversation_of(replicas, 0))
    assert reply.text == "saved" and [len(server.seen) for server in servers] == [1, 1]
    (counted,) = replicas.states[0].failures
    assert issubclass(error, RemoteError) and counted in ("RemoteUnavailable", "RemoteError")
    assert [one.running for one in replicas.states] == [0, 0]
    assert states(replicas)[0] == ("down" if act is dies else "up"), "one bad answer is no server that is gone"


def test_what_fails_after_the_first_piece_goes_nowhere(served: Served) -> None:
    replicas, servers = served(begins("half "), says("whole"))
    asked = conversation_of(replicas, 0)
    for stream in (streamed, astreamed):
        with pytest.raises(RemoteUnavailable, match="before the answer was finished"):
            stream(replicas, asked)
        replicas.fleet.replicas[0].down_since = None
    assert [len(server.seen) for server in servers] == [2, 0]
    assert replicas.states[0].failures == {"RemoteUnavailable": 2} and replicas.states[0].running == 0


def test_a_server_that_hangs_is_left_out(served: Served, ask: Ask) -> None:
    over = threading.Event()
    try:
        replicas, servers = served(hangs(over), says("saved"), timeout_seconds=0.2)
        asked = conversation_of(replicas, 0)
        assert ask(replicas, asked).text == ask(replicas, asked).text == "saved"
        assert replicas.states[0].failures == {"RemoteTimeout": 1} and states(replicas) == ["down", "up"]
        assert len(servers[0].seen) == 1
    finally:
        over.set()


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (refuses(400, {"message": "no", "code": "bad", "param": "top_k"}), RemoteRejected),
        (says("x", prompt_tokens=1), ContextTruncatedByServer),
    ],
)
def test_what_the_request_is_to_blame_for_is_not_tried_again(
    served: Served, act: Act, error: type[RemoteError]
) -> None:
    replicas, servers = served(act, act)
    with pytest.raises(error) as told:
        replicas.generate("word " * 300)
    assert sum(len(server.seen) for server in servers) == 1 and states(replicas) == ["up", "up"]
    assert error is ContextTruncatedByServer or told.value.param == "top_k"  # type: ignore[attr-defined]


def test_a_request_that_ends_servers_does_not_end_all_of_them(served: Served, ask: Ask) -> None:
    replicas, servers = served(*[dies] * 5)
    with pytest.raises(RemoteUnavailable):
        ask(replicas, "poison")
    assert sum(len(server.seen) for server in servers) == 3 and states(replicas).count("up") == 2


def test_a_server_that_asks_for_a_pause_gets_it(served: Served, ask: Ask) -> None:
    busy = refuses(429, {"message": "slow down"}, **{"retry-after": "40"})
    replicas, servers = served(busy, busy)
    for _ in range(2):
        with pytest.raises(RetryLater) as told:
            ask(replicas, "hello")
        assert told.value.status == 429 and 30 < told.value.retry_after_seconds <= 40
    assert states(replicas) == ["resting", "resting"] and [len(server.seen) for server in servers] == [1, 1]


def test_where_none_is_up_nobody_is_asked(ask: Ask) -> None:
    replicas = Replicas([remote(unreachable()) for _ in range(2)], retry_seconds=3600, most_retry_seconds=3600)
    with pytest.raises(RemoteUnavailable, match="no answer from"):
        ask(replicas, "hello")
    with pytest.raises(RemoteUnavailable, match="none of the 2 servers"):
        ask(replicas, "hello")
    assert states(replicas) == ["down", "down"] and replicas.states[0].failures == {"RemoteUnavailable": 1}
    replicas.close()


def test_a_server_that_is_there_again_is_asked_again() -> None:
    looks, may = threading.Semaphore(0), threading.Event()

    def probe(model: str) -> None:
        looks.release()
        if not may.is_set():
            raise RemoteTimeout("not yet")

    fleet = Fleet(["a"], probe, retry_seconds=0.001, most_retry_seconds=0.002)
    fleet.give_back(fleet.take(b""), RemoteUnavailable("gone"))
    assert looks.acquire(timeout=30) and looks.acquire(timeout=30), "it looks again and again"
    with pytest.raises(RemoteUnavailable):
        fleet.take(b"")
    may.set()
    watching = [one for one in threading.enumerate() if one.name == "ctxkit-probe-0"]
    for one in watching:
        one.join(30)
    assert fleet.take(b"").model == "a" and fleet.states()[0].failures == {"RemoteUnavailable": 1}


def test_a_probe_takes_any_answer_but_a_failure() -> None:
    with faulty(says("x")) as server:
        remote(server.url).probe()
        remote(server.url.replace("v1", "v2")).probe()
    with pytest.raises(RemoteUnavailable):
        remote(unreachable()).probe()


def test_a_drained_server_gets_nothing_until_it_is_restored(served: Served) -> None:
    replicas, servers = served(says("0"), says("1"))
    asked = conversation_of(replicas, 0)
    running = replicas.stream(asked)
    assert next(running) == "0"
    replicas.drain(0)
    assert replicas.generate(asked).text == "1" and states(replicas) == ["drained", "up"]
    assert not list(running) and running.reply.text == "0", "what it answers goes on"
    replicas.restore(0)
    assert replicas.generate(asked).text == "0"


def test_a_stream_that_is_dropped_frees_its_server(served: Served) -> None:
    replicas, _ = served(says("one ", "two"))
    stream = replicas.stream("hello")
    assert next(stream) == "one "
    stream.close()
    assert stream.reply.finish_reason == "cancelled" and replicas.states[0].running == 0

    async def main() -> Reply:
        other = replicas.astream("hello")
        await anext(other)
        await other.aclose()
        unread = replicas.astream("hello")
        await unread.aclose()
        assert unread.reply.text == "" and unread.reply.prompt_tokens > 0
        return other.reply

    assert asyncio.run(main()).finish_reason == "cancelled" and replicas.states[0].running == 0
