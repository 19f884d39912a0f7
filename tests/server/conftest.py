"""A real server for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ctxkit.server import Service
from tests.server.running import RunningServer


@pytest.fixture
def serve() -> Iterator[Callable[[Service], RunningServer]]:
    running: list[RunningServer] = []

    def start(service: Service) -> RunningServer:
        running.append(RunningServer(service))
        return running[-1]

    yield start
    for server in running:
        server.close()
