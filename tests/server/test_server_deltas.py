"""Streams of chat: tool calls, thinking and log-probabilities come when the model says them, not at the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ctxkit.models import RemoteModel
from ctxkit.models.replicas import Replicas
from ctxkit.protocols import Reply, TokenLogprob
from ctxkit.server import Service
from ctxkit.server.answering import Piece
from ctxkit.server.call_deltas import CallDeltas
from ctxkit.server.chat_body import ChatBody
from ctxkit.testing import tiny_model
from tests.faulty import Act, Exchange, event, faulty
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]

HI = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def call(index: int, arguments: str, **first: str) -> dict[str, Any]:
    named = {"name": first["name"]} if first else {}
    head = {"id": first["id"], "type": "function"} if first else {}
    return {"tool_calls": [{"index": index, **head, "function": {**named, "arguments": arguments}}]}


def streams(*deltas: dict[str, Any], wait_at: int = -1, may_go_on: threading.Event | None = None) -> Act:
    """An answer of these deltas; before the one at `wait_at` it waits."""

    def act(asked: Exchange) -> None:
        asked.send(200, b"", {"content-type": "text/event-stream"})
        for at, delta in enumerate(deltas):
            if at == wait_at and may_go_on is not None:
                assert may_go_on.wait(30)
            asked.handler.wfile.write(event(delta))
            asked.handler.wfile.flush()
        asked.handler.wfile.write(event({}, "tool_calls") + b"data: [DONE]\n\n")

    return act


CALLS = (
    call(0, "", id="call_a", name="look"),
    call(0, '{"at": '),
    call(0, '"sky"}'),
    call(1, "", id="call_b", name="wait"),
    call(1, "{}"),
)


def model(url: str, *, join: bool = False, replicas: bool = False) -> RemoteModel | Replicas:
    one = RemoteModel(url, "m", window_tokens=500, max_retries=0, tell_more=True, join_pieces=join)
    return Replicas([one]) if replicas else one


def deltas(server: RunningServer, **more: Any) -> Iterator[dict[str, Any]]:
    """The choices of a stream's chunks, as they arrive."""
    body = {"messages": HI, "stream": True, "tools": [TOOL], **more}
    with httpx.stream("POST", f"{server.root}/v1/chat/completions", json=body, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield from json.loads(line[6:])["choices"]


@pytest.mark.parametrize(("join", "replicas"), [(False, False), (True, False), (True, True)])
def test_arguments_arrive_while_the_upstream_still_writes_them(serve: Start, join: bool, replicas: bool) -> None:
    may_go_on = threading.Event()
    with faulty(streams(*CALLS, wait_at=2, may_go_on=may_go_on)) as upstream:
        found: list[dict[str, Any]] = []
        for choice in deltas(serve(Service({"m": model(upstream.url, join=join, replicas=replicas)}))):
            found += choice["delta"].get("tool_calls", ())
            if found and found[-1]["function"]["arguments"] == '{"at": ':
                may_go_on.set()  # the rest is written only now
        assert may_go_on.is_set()
    assert [(one["index"], one.get("id"), one["function"].get("name")) for one in found if "id" in one] == [
        (0, "call_a", "look"),
        (1, "call_b", "wait"),
    ]
    assert all(one["function"]["arguments"] == "" for one in found if "id" in one)
    assert "".join(one["function"]["arguments"] for one in found if one["index"] == 0) == '{"at": "sky"}'


def test_the_official_client_puts_the_calls_together(serve: Start) -> None:
    with faulty(streams({"content": "So: "}, *CALLS)) as upstream:
        client = serve(Service({"m": model(upstream.url)})).client()
        with client.chat.completions.stream(model="m", messages=HI, tools=[TOOL]) as stream:
            final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.content == "So: "
    made = [(one.id, one.function.name, one.function.arguments) for one in final.message.tool_calls]
    assert made == [("call_a", "look", '{"at": "sky"}'), ("call_b", "wait", "{}")]


def test_thinking_comes_in_pieces_and_once(serve: Start) -> None:
    thoughts = [{"reasoning_content": "Hm, "}, {"reasoning_content": "two."}, {"content": "Two"}]
    with faulty(streams(*thoughts)) as upstream:
        found = [one["delta"] for one in deltas(serve(Service({"m": model(upstream.url)})))]
    said = [one["reasoning_content"] for one in found if "reasoning_content" in one]
    assert said == ["Hm, ", "two."] and [one["content"] for one in found if one.get("content")] == ["Two"]


def test_what_came_behind_the_last_piece_comes_at_the_end() -> None:
    making = ChatBody("m", {"labels": {"prompt": "public", "untrusted": "flag"}})
    tokens = tuple(TokenLogprob(text, -1.0) for text in ("a", "b", "c"))
    begun = list(making.piece(0, Piece("ab", tokens[:2], "Hm")))
    ended = list(making.ends(0, Reply("ab", "stop", 1, 3, "m", logprobs=tokens, reasoning="Hm, so.")))
    choices = [one["choices"][0] for one in (*begun, *ended)]
    assert [one["delta"].get("reasoning_content") for one in choices] == ["Hm", None, ", so.", None]
    told = [[entry["token"] for entry in one["logprobs"]["content"]] for one in choices if one["logprobs"]]
    assert told == [["a", "b"], ["c"]]
    assert list(making.piece(1, Piece(""))) == []


def test_each_piece_has_the_log_probabilities_of_its_tokens(serve: Start) -> None:
    server = serve(Service({"m": tiny_model()}))
    more: dict[str, Any] = {"logprobs": True, "top_logprobs": 1, "max_tokens": 12, "tools": None}
    body = {"messages": HI, **more}
    whole = httpx.post(f"{server.root}/v1/chat/completions", json=body, timeout=30).json()["choices"][0]
    chunks = list(deltas(server, **more))
    texts = [one for one in chunks if one["delta"].get("content")]
    assert len(texts) > 3 and all(one["logprobs"]["content"] for one in texts)
    told = [entry for one in chunks if one["logprobs"] for entry in one["logprobs"]["content"]]
    assert [entry["token"] for entry in told] == [entry["token"] for entry in whole["logprobs"]["content"]]
    quiet = list(deltas(server, max_tokens=4, tools=None))
    assert all(one["logprobs"] is None for one in quiet)


def test_the_upstreams_log_probabilities_stand_with_their_text(serve: Start) -> None:
    def act(asked: Exchange) -> None:
        asked.send(200, b"", {"content-type": "text/event-stream"})
        for text in ("one ", "two"):
            content = [{"token": text, "logprob": -0.5, "top_logprobs": []}]
            choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": content}}
            asked.handler.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        asked.handler.wfile.write(event({}, "stop") + b"data: [DONE]\n\n")

    with faulty(act) as upstream:
        found = list(deltas(serve(Service({"m": model(upstream.url)})), logprobs=True, tools=None))
    paired = [(one["delta"]["content"], one["logprobs"]["content"][0]["token"]) for one in found if one["logprobs"]]
    assert paired == [("one ", "one "), ("two", "two")]


def test_a_stream_of_a_model_that_tells_nothing_more_has_no_empty_pieces() -> None:
    with faulty(streams(*CALLS)) as upstream:
        plain = RemoteModel(upstream.url, "m", window_tokens=500)
        stream = plain.stream("hello")
        assert list(stream) == [] and len(stream.reply.tool_calls) == 2


def grown(*states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All deltas of calls that grow through these states."""
    made = CallDeltas()
    found = [one for state in states[:-1] for one in made.of(state, whole=False)]
    return found + list(made.of(states[-1], whole=True))


def state(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


def test_a_name_is_given_when_it_is_whole() -> None:
    found = grown([state("lo", "")], [state("look", "")], [state("look", "{")], [state("look", "{}")])
    assert [one["function"] for one in found] == [
        {"name": "look", "arguments": ""},
        {"arguments": "{"},
        {"arguments": "}"},
    ]


@pytest.mark.parametrize("arguments", ["", "{}", {"a": 1}])
def test_a_call_that_comes_at_once_is_given_whole(arguments: Any) -> None:
    found = grown([], [state("look", arguments), state("next", "{}", id="x")])
    assert [one["index"] for one in found if "id" in one] == [0, 1] and found[0]["id"] != "x"
    said = "".join(one["function"]["arguments"] for one in found if one["index"] == 0)
    assert said == (arguments if isinstance(arguments, str) else '{"a": 1}')


def test_no_calls_are_no_deltas() -> None:
    assert grown([], []) == []
