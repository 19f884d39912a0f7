"""A little OpenAI-compatible server on the loopback interface, and the models that the contract tests run over."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stamina

from ctxkit.models import LocalModel, RemoteModel
from ctxkit.protocols import Model
from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_model

ANSWER = "Rivers carry water to the sea."


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)  # pyright: ignore[reportAttributeAccessIssue]
        text, reason = _cut(ANSWER, body)
        usage = {"prompt_tokens": 11, "completion_tokens": len(text.split())}
        if not body["stream"]:
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
            return self._send("application/json", json.dumps({"choices": [choice], "usage": usage}).encode())
        chunks: list[Any] = [{"choices": [{"delta": {"content": word}}]} for word in _words(text)]
        chunks += [{"choices": [{"delta": {}, "finish_reason": reason}]}, {"choices": [], "usage": usage}]
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return self._send("text/event-stream", "".join([*events, "data: [DONE]\n\n"]).encode())

    def do_GET(self) -> None:
        self._send("application/json", b'{"data": [{"id": "echo"}, {"id": "other"}]}')

    def _send(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(" " + word for word in others)]


def _cut(text: str, body: dict[str, Any]) -> tuple[str, str]:
    for stop in body.get("stop", []):
        if stop in text:
            return text[: text.index(stop)], "stop"
    words = _words(text)
    short = "".join(words[: body["max_tokens"]])
    return short, "stop" if short == text else "length"


@pytest.fixture(scope="session")
def server() -> Iterator[ThreadingHTTPServer]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    running.seen = []  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(scope="session")
def base_url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


@pytest.fixture(scope="session")
def tiny() -> LocalModel:
    return tiny_model()


@pytest.fixture(params=["scripted", "local", "remote"])
def model(request: pytest.FixtureRequest, tiny: LocalModel, base_url: str) -> Model:
    """Each kind of model. Every one gives the same answer whenever it is asked greedily."""
    make: dict[str, Callable[[], Model]] = {
        "scripted": lambda: ScriptedModel(lambda asked: ANSWER),
        "local": lambda: tiny,
        "remote": lambda: RemoteModel(base_url, "echo", window_tokens=4096, counter=WhitespaceCounter()),
    }
    return make[request.param]()


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Retries happen at once."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
