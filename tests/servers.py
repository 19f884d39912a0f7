"""A little OpenAI-compatible server on the loopback interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)
Content = tuple[str, bytes]
"""Content type and body of an answer."""


def as_json(value: Any) -> Content:
    return "application/json", json.dumps(value).encode()


def as_events(chunks: Sequence[Any]) -> Content:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "text/event-stream", "".join([*events, "data: [DONE]\n\n"]).encode()


class LocalServer(ThreadingHTTPServer):
    """At a free port of the loopback interface."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """Reads JSON, and logs nothing."""

    def asked(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def log_message(self, format: str, *args: Any) -> None:
        pass


class OpenAIServer(LocalServer):
    """models: the ids that it lists. answer: to the JSON of a request.

    seen: the JSON and the authorization of each request.
    """

    def __init__(self, models: Sequence[str], answer: Callable[[dict[str, Any]], Content]) -> None:
        super().__init__(_Handler)
        self.models = models
        self.answer = answer
        self.seen: list[tuple[dict[str, Any], str | None]] = []


class _Handler(Handler):
    server: OpenAIServer

    def do_POST(self) -> None:
        body = self.asked()
        self.server.seen.append((body, self.headers.get("authorization")))
        self._send(*self.server.answer(body))

    def do_GET(self) -> None:
        self._send(*as_json({"data": [{"id": name} for name in self.server.models]}))

    def _send(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server answers in a thread of its own, until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
