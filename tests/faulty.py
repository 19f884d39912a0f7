"""An OpenAI-compatible server on the loopback interface that fails as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.servers import Handler, LocalServer, serving

Act = Callable[["Exchange"], None]
"""What the server does with a request."""


class Exchange:
    """A request, and the connection it came by."""

    def __init__(self, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        self.body, self.handler = body, handler

    def send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(content)
        self.handler.wfile.flush()


def event(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}
    return f"data: {json.dumps(chunk)}\n\n".encode()


def begins(*texts: str) -> Act:
    """The head of a stream and these pieces, without an end."""

    def act(asked: Exchange) -> None:
        asked.send(200, b"".join(event({"content": text}) for text in texts), {"content-type": "text/event-stream"})

    return act


def says(*texts: str, prompt_tokens: int | None = None) -> Act:
    """A whole answer, streamed where it was asked for so."""
    usage = (
        {} if prompt_tokens is None else {"usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(texts)}}
    )

    def act(asked: Exchange) -> None:
        if asked.body.get("stream"):
            begins(*texts)(asked)
            asked.handler.wfile.write(event({}, "stop", **usage) + b"data: [DONE]\n\n")
            return
        message = {"role": "assistant", "content": "".join(texts)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        asked.send(200, json.dumps({"choices": [choice], **usage}).encode(), {"content-type": "application/json"})

    return act


def refuses(status: int, error: Mapping[str, Any], **headers: str) -> Act:
    return lambda asked: asked.send(status, json.dumps({"error": error}).encode(), headers)


def hangs(until: threading.Event) -> Act:
    return lambda asked: until.wait(30) and None


def garbage(asked: Exchange) -> None:
    content_type = "text/event-stream" if asked.body.get("stream") else "application/json"
    asked.send(200, b"data: <html>{\n\n", {"content-type": content_type})


def dies(asked: Exchange) -> None:
    """Closes the connection without a word."""


class FaultyServer(LocalServer):
    """acts: what is done with each request, in order; the last one again and again.

    models: the entries of GET /models. seen: the requests.
    """

    daemon_threads = True

    def __init__(self, *acts: Act, models: Sequence[Mapping[str, Any]] = ({"id": "m"},)) -> None:
        super().__init__(_Handler)
        self.acts, self.models = list(acts), models
        self.seen: list[dict[str, Any]] = []


class _Handler(Handler):
    server: FaultyServer

    def do_POST(self) -> None:
        body = self.asked()
        at = min(len(self.server.seen), len(self.server.acts) - 1)
        self.server.seen.append(body)
        self.server.acts[at](Exchange(body, self))

    def do_GET(self) -> None:
        Exchange({}, self).send(200, json.dumps({"data": list(self.server.models)}).encode(), {})


@contextmanager
def faulty(*acts: Act, **settings: Any) -> Iterator[FaultyServer]:
    """Answers until the block ends."""
    with serving(FaultyServer(*acts, **settings)) as server:
        yield server
