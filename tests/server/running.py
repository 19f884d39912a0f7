"""A Service behind uvicorn on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
import threading

import openai
import uvicorn

from ctxkit.server import Service, create_app


class RunningServer:
    """A Service behind uvicorn, in a thread of its own."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(service), log_level="error", lifespan="on", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
            assert self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def client(self, key: str = "none", **settings: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.root}/v1", api_key=key, **{"max_retries": 0, **settings})  # type: ignore[arg-type]

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
