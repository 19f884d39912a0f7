"""The log of a server: a line for each request, with its id and its numbers, and neither content nor keys."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxkit.protocols import Encoder, Vectors
from ctxkit.server import ServeOptions, Service
from ctxkit.server.logs import Lines, LogFormat, WithRequest, places_of
from ctxkit.testing import ScriptedModel
from tests.server.letters import Letters
from tests.server.running import RunningServer
from tests.servers import OpenAIServer, as_events, serving

Start = Callable[[Service], RunningServer]
SECRET = "Zanzibar"
KEY = "sk-the-key"


class Kept(logging.Handler):
    """Keeps the lines that a formatter makes, while the request is still there."""

    def __init__(self, form: LogFormat, *, messages: bool = False) -> None:
        super().__init__()
        self.setFormatter(Lines(form, messages=messages))
        self.addFilter(WithRequest())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def requests(self) -> list[dict[str, Any]]:
        return [one for one in map(json.loads, self.lines) if one["logger"] == "ctxkit.server.requests"]


@pytest.fixture
def logged(request: pytest.FixtureRequest) -> Iterator[Kept]:
    form, messages = getattr(request, "param", ("json", False))
    kept, logger = Kept(form, messages=messages), logging.getLogger("ctxkit")
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)


def service(*lines: Any, encoder: Encoder | None = None, **settings: Any) -> Service:
    options = ServeOptions(api_keys=(KEY, "other"), **settings)
    return Service({"m": ScriptedModel(lines, window_tokens=200)}, encoder=encoder or Letters(), options=options)


def ask(server: RunningServer, path: str = "chat/completions", key: str = KEY, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **body.pop("headers", {})}
    if path == "chat/completions":
        body = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 20, **body}
    return httpx.post(f"{server.root}/v1/{path}", json=body, headers=headers)


def test_a_request_is_one_line_with_its_numbers_and_without_content_or_key(serve: Start, logged: Kept) -> None:
    server = serve(service(f"It is {SECRET}"))
    answer = ask(server)
    server.close()
    (line,) = logged.requests()
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    usage = answer.json()["usage"]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert line["completion_tokens"] == 3 and line["model"] == "m" and line["seconds"] >= 0
    assert (line["reduced"], line["dropped"]) == (0, 0) and "error" not in line
    everything = "".join(logged.lines)
    assert SECRET not in everything and KEY not in everything


def test_owners_are_told_apart_by_hashed_names(serve: Start, logged: Kept) -> None:
    server = serve(service("a", "b", "c"))
    for key in (KEY, "other", KEY):
        ask(server, key=key)
    server.close()
    owners = [line["owner"] for line in logged.requests()]
    assert owners[0] == owners[2] != owners[1] and all(one.startswith("key-") for one in owners)


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_left_out_is_counted(serve: Start, logged: Kept, stream: bool) -> None:
    history = [{"role": role, "content": f"{SECRET} " * 30} for role in ("user", "assistant")] * 6
    server = serve(service("fine"))
    asked = [*history, {"role": "user", "content": "Now?"}]
    assert ask(server, messages=asked, stream=stream).status_code == 200
    server.close()
    (line,) = logged.requests()
    assert line["dropped"] + line["reduced"] > 0 and line["completion_tokens"] == 1
    assert SECRET not in "".join(logged.lines)


def test_embeddings_count_their_tokens(serve: Start, logged: Kept) -> None:
    server = serve(service())
    assert ask(server, "embeddings", input=["one two", "three"]).status_code == 200
    server.close()
    (line,) = logged.requests()
    assert (line["model"], line["prompt_tokens"]) == ("letters", 3)


@pytest.mark.parametrize("given", ["abc-1.2:3_Z", "x" * 128])
def test_the_id_that_a_client_sends_is_kept(serve: Start, logged: Kept, given: str) -> None:
    server = serve(service("a"))
    answer = ask(server, headers={"x-request-id": given})
    server.close()
    assert answer.headers["x-request-id"] == given == logged.requests()[0]["request_id"]


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'a"b', "a\tb", "ä"])
def test_an_unsafe_id_is_replaced(serve: Start, logged: Kept, given: str) -> None:
    server = serve(service("a"))
    answer = ask(server, headers={"x-request-id": given.encode()})
    server.close()
    assert answer.headers["x-request-id"].startswith("req_")
    assert logged.requests()[0]["request_id"] == answer.headers["x-request-id"]


def test_two_ids_are_none(serve: Start) -> None:
    server = serve(service("a"))
    twice = [("x-request-id", "one"), ("x-request-id", "two")]
    assert httpx.get(f"{server.root}/health", headers=twice).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "key", "code"),
    [
        ({"model": "no"}, KEY, "model_not_found"),
        ({}, "wrong", "invalid_api_key"),
        ({"n": -1}, KEY, "invalid_value"),
        ({"ctxkit": {"window_tokens": 1}}, KEY, "context_length_exceeded"),
    ],
)
def test_a_refusal_is_named(serve: Start, logged: Kept, body: dict[str, Any], key: str, code: str) -> None:
    server = serve(service("a"))
    answer = ask(server, key=key, **body)
    server.close()
    (line,) = logged.requests()
    assert (line["status"], line["error"]) == (answer.status_code, code)
    assert ("owner" in line) == (key == KEY)
    assert "wrong" not in "".join(logged.lines)


class Broken(Letters):
    """Fails with the text in the message."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        raise KeyError(*texts)


def test_an_unforeseen_error_has_an_id_and_a_place_and_no_content(serve: Start, logged: Kept) -> None:
    server = serve(service(encoder=Broken()))
    answer = ask(server, "embeddings", input=SECRET)
    server.close()
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    (line,) = logged.requests()
    assert (line["status"], line["error"]) == (500, "internal")
    (failure,) = [one for one in map(json.loads, logged.lines) if one["level"] == "error"]
    assert failure["request_id"] == line["request_id"] == answer.headers["x-request-id"]
    assert failure["error_at"][0].startswith("KeyError at ") and failure["error_at"][0].endswith(" in encode_documents")
    assert SECRET not in "".join(logged.lines) + answer.text


@pytest.mark.parametrize("logged", [("json", True)], indirect=True)
def test_messages_of_errors_are_shown_where_they_are_asked_for(serve: Start, logged: Kept) -> None:
    server = serve(service(encoder=Broken()))
    ask(server, "embeddings", input=SECRET)
    server.close()
    (failure,) = [one for one in map(json.loads, logged.lines) if one["level"] == "error"]
    assert f"KeyError: '{SECRET}'" in failure["traceback"]


def test_an_answer_that_fails_in_its_stream_is_named(serve: Start, logged: Kept) -> None:
    class Breaking(ScriptedModel):
        def _answer(self, prompt: Any, sampling: Any) -> Any:
            answer = super()._answer(prompt, sampling)

            def pieces(stopped: Any) -> Iterator[str]:
                yield "word "
                raise RuntimeError(SECRET)

            answer.pieces = pieces  # type: ignore[method-assign, assignment]
            return answer

    server = serve(Service({"m": Breaking(["one"])}))
    assert "internal" in ask(server, stream=True).text
    server.close()
    (line,) = logged.requests()
    assert (line["status"], line["error"]) == (200, "internal")
    assert line["owner"] == "anybody" and SECRET not in "".join(logged.lines)


def test_what_watches_the_server_is_not_logged_until_it_fails(serve: Start, logged: Kept) -> None:
    made = service()
    server = serve(made)
    for path in ("health", "metrics"):
        httpx.get(f"{server.root}/{path}")
    assert not logged.lines
    made.gate.closed = True
    httpx.get(f"{server.root}/health")
    server.close()
    (line,) = logged.requests()
    assert (line["status"], line["error"]) == (503, "not_ready")


def test_a_path_that_is_none_of_ours_is_not_logged_as_it_stands(serve: Start, logged: Kept) -> None:
    server = serve(service())
    httpx.get(f"{server.root}/{SECRET}")
    server.close()
    (line,) = logged.requests()
    assert line["status"] == 404 and SECRET not in "".join(logged.lines)


@pytest.mark.parametrize("logged", [("text", False)], indirect=True)
def test_as_text_a_request_is_one_line_too(serve: Start, logged: Kept) -> None:
    server = serve(service("fine"))
    ask(server, headers={"x-request-id": "mine"})
    server.close()
    (line,) = logged.lines
    assert " info ctxkit.server.requests mine request method=POST route=/v1/chat/completions status=200 " in line
    assert " model=m " in line and SECRET not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_cannot_make_a_second_line(form: LogFormat) -> None:
    record = logging.LogRecord("ctxkit", logging.WARNING, "", 0, "one\ntwo\r%s", ("three\nfour",), None)
    line = Lines(form).format(record)
    assert len(line.splitlines()) == 1 and "four" in line


def test_the_places_of_an_error_end_where_causes_go_in_a_circle() -> None:
    one, two = ValueError("a"), KeyError("b")
    one.__cause__, two.__context__ = two, one
    assert places_of(one) == ["ValueError", "KeyError"]


def test_a_started_server_writes_nothing_but_json_lines(tmp_path: Path) -> None:
    upstream = OpenAIServer(["far"], lambda body: as_events([{"choices": [{"delta": {}, "finish_reason": "stop"}]}]))
    with serving(upstream):
        command = [sys.executable, "-m", "ctxkit", "serve", "far", "--upstream", upstream.url, "--window", "500"]
        flags = ["--port", "0", "--log-format", "json", "--store", str(tmp_path / "s.db")]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CTXKIT_")}
        environment = {**clean, "CTXKIT_SERVE_API_KEYS": KEY}
        with subprocess.Popen(
            [*command, *flags], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            try:
                first = json.loads(process.stderr.readline())
                httpx.get(f"{first['url']}/models", headers={"authorization": f"Bearer {KEY}", "x-request-id": "mine"})
            finally:
                process.terminate()
            rest = [json.loads(line) for line in process.stderr]
    assert (first["message"], first["model"], first["request_id"]) == ("listening", "far", "-")
    assert [one["request_id"] for one in rest if one["message"] == "request"] == ["mine"]
    assert KEY not in json.dumps(rest)
