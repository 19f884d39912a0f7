"""A real server for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

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


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where sessions are kept; with each database. Owners of their own keep tests apart on the shared server."""
    if request.param == "sqlite":
        return str(tmp_path / "sessions.db")
    return str(request.getfixturevalue("postgres").url)
