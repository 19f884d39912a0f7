"""Rate limits: a key has its own, tokens are charged as they were used, and the headers are OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import openai
import pytest

from ctxkit.errors import RemoteUnavailable
from ctxkit.protocols import Reply
from ctxkit.server import ServeOptions, Service
from ctxkit.server.answering import Piece
from ctxkit.server.limits import Bucket, RateLimits, duration
from ctxkit.server.problems import Problem
from ctxkit.testing import ScriptedModel
from tests.server.letters import Letters
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
HI = [{"role": "user", "content": "hello"}]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def limited(clock: Clock, *replies: Any, requests: int | None = None, tokens: int | None = None) -> Service:
    service = Service({"m": ScriptedModel(list(replies))}, options=ServeOptions(api_keys=("one", "two")))
    service.limits = RateLimits(requests, tokens, clock)
    return service


def ask(server: RunningServer, key: str = "one", path: str = "chat/completions", **more: Any) -> httpx.Response:
    said = {"responses": {"input": "hello", "max_output_tokens": 10}, "completions": {"prompt": "hello"}}
    body = {"max_tokens": 10, **said.get(path, {"messages": HI}), **more}
    if path == "responses":
        del body["max_tokens"]
    return httpx.post(f"{server.root}/v1/{path}", json=body, headers={"authorization": f"Bearer {key}"})


def left(answer: httpx.Response, kind: str) -> tuple[str, str, str]:
    return tuple(answer.headers[f"x-ratelimit-{what}-{kind}"] for what in ("limit", "remaining", "reset"))  # type: ignore[return-value]


def test_a_bucket_fills_evenly_and_never_above_its_minute() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.take(90)
    assert bucket.level == -30 and bucket.seconds_until(1) == 31
    clock.now = 45
    assert bucket.level == 15 and bucket.seconds_until(60) == 45
    clock.now = 1000
    assert bucket.level == 60 and bucket.seconds_until(60) == 0
    bucket.take(-5)
    assert bucket.level == 60


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0ms"), (0.0001, "1ms"), (0.999, "999ms"), (1, "1s"), (59.5, "59.5s"), (360, "6m0s")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_requests_beyond_the_limit_are_refused_until_time_has_passed(serve: Start) -> None:
    clock = Clock()
    server = serve(limited(clock, *["ok"] * 5, requests=2))
    assert left(ask(server), "requests") == ("2", "1", "30s")
    assert left(ask(server, stream=True), "requests") == ("2", "0", "1m0s")
    refused = ask(server)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "30" and left(refused, "requests")[1] == "0"
    assert ask(server, "two").status_code == 200, "another key has its own"
    clock.now = 30
    assert ask(server).status_code == 200
    with pytest.raises(openai.RateLimitError):
        server.client("one").chat.completions.create(model="m", messages=HI)


def test_a_stranger_spends_nothing_and_learns_no_limit(serve: Start) -> None:
    server = serve(limited(Clock(), "ok", requests=1))
    refused = ask(server, "three")
    assert refused.status_code == 401 and not any(name.startswith("x-ratelimit") for name in refused.headers)
    assert ask(server).status_code == 200


@pytest.mark.parametrize("path", ["chat/completions", "responses", "completions"])
def test_tokens_are_charged_as_they_were_used(serve: Start, path: str) -> None:
    clock = Clock()
    server = serve(limited(clock, "one two three", tokens=100))
    spent = ask(server, path=path).json()["usage"]["total_tokens"]
    assert spent > 3 and int(left(ask_models(server), "tokens")[1]) == 100 - spent


def ask_models(server: RunningServer) -> httpx.Response:
    return httpx.get(f"{server.root}/v1/models", headers={"authorization": "Bearer one"})


def test_while_an_answer_is_given_what_it_may_take_is_held(serve: Start) -> None:
    server = serve(limited(Clock(), "one two three", tokens=100))
    answer = ask(server, stream=True)
    prompt = 100 - 10 - int(left(answer, "tokens")[1])
    assert prompt >= 1, "the head was sent with ten tokens held for the answer"
    assert left(ask_models(server), "tokens")[1] == str(100 - prompt - 3)


def test_a_request_that_no_minute_can_hold_says_so_and_is_not_tried_again(serve: Start) -> None:
    server = serve(limited(Clock(), "ok", tokens=20))
    for more in ({"max_tokens": 50}, {"max_tokens": 50, "stream": True}, {"n": 3}):
        refused = ask(server, **more)
        assert refused.status_code == 429 and "max_tokens" in refused.json()["error"]["message"]
        assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    assert ask(server).status_code == 200, "what was refused took no tokens"


def test_an_answer_for_which_tokens_are_missing_waits_for_them(serve: Start) -> None:
    clock = Clock()
    server = serve(limited(clock, *["word " * 9] * 3, tokens=40))
    assert ask(server).status_code == 200
    assert ask(server).status_code == 200
    refused = ask(server)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 1
    clock.now = float(refused.headers["retry-after"])
    assert ask(server).status_code == 200


def test_a_failure_costs_no_tokens(serve: Start) -> None:
    server = serve(limited(Clock(), RemoteUnavailable("down"), tokens=100))
    assert ask(server).status_code == 502
    assert left(ask_models(server), "tokens") == ("100", "100", "0ms")


def test_vectors_cost_tokens_too(serve: Start) -> None:
    service = limited(Clock(), tokens=3)
    service.encoder = Letters()
    server = serve(service)
    assert left(ask(server, path="embeddings", input="a b c d e"), "tokens")[1] == "0"
    assert ask(server, path="embeddings", input="a").status_code == 429, "more was taken than there was"


async def told(limits: RateLimits, *items: Any, stop_after: int = 99) -> int:
    """What is left of 100 tokens after answers of these items to a prompt of 10 tokens, with 20 held."""

    async def made() -> AsyncGenerator[Any]:
        for item in items:
            if isinstance(item, Exception):
                raise item
            at, said = item
            yield at, Piece(said) if isinstance(said, str) else said

    stream = limits.metered("me", 10, 20, made())
    try:
        for _ in range(min(stop_after, len(items))):
            await anext(stream)
    except RuntimeError:
        pass
    await stream.aclose()
    return int(limits.headers("me")["x-ratelimit-remaining-tokens"])


@pytest.mark.parametrize(
    ("items", "stop_after", "left_over"),
    [
        ([(0, "a"), (0, "b"), (0, Reply("ab", "stop", 12, 5, "m"))], 99, 83),
        ([(0, "a"), (0, "b"), (0, "c")], 2, 88),  # the client went away
        ([(0, "a"), (1, "x"), (0, Reply("a", "stop", 12, 1, "m")), (1, "y"), (1, "z")], 4, 85),
        ([(0, "a"), RuntimeError("broke")], 99, 89),
        ([RuntimeError("broke")], 99, 100),
    ],
)
def test_an_answer_that_does_not_end_costs_what_was_seen_of_it(
    items: list[Any], stop_after: int, left_over: int
) -> None:
    assert asyncio.run(told(RateLimits(None, 100, Clock()), *items, stop_after=stop_after)) == left_over


def test_owed_tokens_keep_the_next_request_out() -> None:
    limits = RateLimits(None, 60, Clock())
    limits.request("me")
    limits.charge("me", 90)
    with pytest.raises(Problem) as refusal:
        limits.request("me")
    assert refusal.value.headers["retry-after"] == "30"
    limits.request("you")


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_a_limit_of_nothing_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        ServeOptions(**{limit: 0})
    assert RateLimits(None, None).headers("me") == {}
