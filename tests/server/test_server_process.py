"""A real `ctxkit serve` process: it drains when it is asked to end, and loses nothing when it is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from tests.faulty import Act, Exchange, begins, event, faulty

HI = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def processes(repository: Path) -> Iterator[ModuleType]:
    """benchmarks/server/processes.py."""
    spec = importlib.util.spec_from_file_location("processes", repository / "benchmarks/server/processes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def waits(begun: threading.Event, may_end: threading.Event) -> Act:
    """Half an answer, and the rest when it may."""

    def act(asked: Exchange) -> None:
        begins("half ")(asked)
        begun.set()
        may_end.wait(60)
        asked.handler.wfile.write(event({"content": "whole"}) + event({}, "stop") + b"data: [DONE]\n\n")

    return act


def test_a_server_that_is_asked_to_end_answers_first_and_lets_nobody_in(
    processes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    begun, may_end, said = threading.Event(), threading.Event(), list[str]()
    models = [{"id": "m", "max_model_len": 3000}]
    with faulty(waits(begun, may_end), models=models) as upstream:
        server = processes.serve("--upstream", upstream.url, "--store", str(tmp_path / "sessions.db"))
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["max_model_len"] == 3000

        def ask() -> None:
            body = {"messages": HI, "stream": True}
            said.append(httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).text)

        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.wait(60)
        server.process.terminate()
        while not refused(f"{server.url}/health"):
            asking.join(0.01)
        assert server.process.poll() is None, "it still answers"
        may_end.set()
        asking.join()
        assert server.stop() == 0, server.log
    assert "half " in said[0] and "whole" in said[0] and said[0].endswith("data: [DONE]\n\n")
    assert "3,000 tokens" in server.log and "Traceback" not in server.log


def test_several_processes_share_a_port_sessions_and_metrics(
    processes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with faulty(begins("fine")) as upstream:
        given = ["m", "--upstream", upstream.url, "--window", "3000", "--store", str(tmp_path / "sessions.db")]
        server = processes.serve(*given, "--workers", "2")
        _, *workers = server.children()
        session = httpx.post(f"{server.url}/v1/sessions", json={}).json()["id"]
        found = [httpx.get(f"{server.url}/v1/sessions/{session}").json()["id"] for _ in range(20)]
        assert found == [session] * 20
        counted = httpx.get(f"{server.url}/metrics").text
        assert 'ctxkit_requests_total{route="/v1/sessions/{session}",status="200"} 20.0' in counted
        os.kill(workers[0], signal.SIGKILL)
        while workers[0] in server.children() or len(server.children()) < 3:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGHUP)
        while workers[1] in server.children() or len(server.children()) < 3:
            with suppress(httpx.RemoteProtocolError):  # a connection that has asked nothing yet is closed
                assert httpx.get(f"{server.url}/v1/sessions/{session}").status_code == 200
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


def refused(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 503
    except httpx.TransportError:
        return True


def test_what_was_acknowledged_survives_kill_9(repository: Path) -> None:
    command = [sys.executable, "benchmarks/server/kill.py", "--kills", "5"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), *sys.path])}
    ran = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "5 kills" in ran.stdout and ran.stdout.strip().endswith("0 faults")
