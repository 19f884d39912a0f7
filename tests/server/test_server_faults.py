"""What a client is told when something behind the server fails, and what is kept of the turn: nothing."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxkit.models import RemoteModel
from ctxkit.models.replicas import Replicas
from ctxkit.models.transport import KeptTransport
from ctxkit.server import Service
from ctxkit.server.sessions.database import SqliteDatabase, open_database
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import ScriptedModel
from tests.faulty import Act, Exchange, begins, dies, faulty, garbage, hangs, refuses, says
from tests.postgres import Postgres
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
Behind = Callable[..., httpx.Client]
SESSION = "talk"


def replicas(*urls: str) -> Replicas:
    settings: dict[str, Any] = {"window_tokens": 1000, "max_retries": 0, "timeout_seconds": 0.5}
    made = [RemoteModel(url, "m", async_transport=KeptTransport(), **settings) for url in urls]
    return Replicas(made, retry_seconds=3600, most_retry_seconds=3600)


@pytest.fixture
def behind(serve: Start, tmp_path: Path) -> Iterator[Behind]:
    """A client of a server with a session, in front of servers that act so."""
    with ExitStack() as stack:

        def start(*acts: Act) -> httpx.Client:
            urls = [stack.enter_context(faulty(act)).url for act in acts]
            database = SqliteDatabase(tmp_path / "sessions.db")
            stack.callback(database.close)
            service = Service({"m": replicas(*urls)}, store=SessionStore(database))
            web = stack.enter_context(httpx.Client(base_url=serve(service).root, timeout=30))
            web.post("/v1/sessions", json={"id": SESSION})
            return web

        yield start


def ask(web: httpx.Client, stream: bool, text: str = "hello") -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}], "stream": stream, "ctxkit": {"session": SESSION}}
    return web.post("/v1/chat/completions", json=body)


def kept(web: httpx.Client) -> list[str]:
    return [one["role"] for one in web.get(f"/v1/sessions/{SESSION}").json()["messages"]]


def error_in(answer: httpx.Response) -> dict[str, Any]:
    """Of a body, or of the last event of a stream."""
    last = [line for line in answer.text.split("\n\n") if line][-1]
    return json.loads(last.removeprefix("data: "))["error"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("act", "status", "code", "headers"),
    [
        (dies, 502, "upstream_unavailable", {"retry-after": "1"}),
        (garbage, 502, "upstream_unavailable", {"x-should-retry": "false"}),
        (refuses(400, {"message": "no", "code": "bad_k", "param": "top_k"}), 400, "bad_k", {}),
        (refuses(401, {"message": "wrong key"}), 502, "upstream_unauthorized", {"x-should-retry": "false"}),
        (refuses(429, {"message": "slow"}, **{"retry-after": "7"}), 429, "rate_limit_exceeded", {"retry-after": "7"}),
        (refuses(503, {"message": "full"}, **{"retry-after": "3"}), 503, "upstream_unavailable", {"retry-after": "3"}),
        (refuses(500, {"message": "broken"}), 502, "upstream_unavailable", {"retry-after": "1"}),
    ],
)
def test_an_upstream_that_fails_at_once_is_an_error_with_its_status(
    behind: Behind, act: Act, stream: bool, status: int, code: str, headers: dict[str, str]
) -> None:
    web = behind(act)
    answer = ask(web, stream)
    assert (answer.status_code, error_in(answer)["code"]) == (status, code), answer.text
    assert headers.items() <= dict(answer.headers).items()
    assert error_in(answer)["param"] == ("top_k" if status == 400 else None)
    assert "127.0.0.1" not in answer.text and kept(web) == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_hangs_is_a_timeout(behind: Behind, stream: bool) -> None:
    over = threading.Event()
    web = behind(hangs(over))
    answer = ask(web, stream)
    over.set()
    assert (answer.status_code, error_in(answer)["code"]) == (504, "timeout")
    assert "127.0.0.1" not in answer.text and kept(web) == []


def test_an_upstream_that_dies_in_its_answer_is_an_error_event(behind: Behind) -> None:
    web = behind(begins("half ", "an "))
    answer = ask(web, stream=True)
    assert answer.status_code == 200 and '"half an "' in answer.text or '"half "' in answer.text
    assert error_in(answer)["code"] == "upstream_unavailable" and "[DONE]" not in answer.text
    assert kept(web) == []
    assert 'ctxkit_upstream_failures_total{error="RemoteUnavailable",model="m",replica="0"} 1.0' in metrics(web)


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_cuts_the_prompt_is_told(behind: Behind, stream: bool) -> None:
    web = behind(says("an answer to half of it", prompt_tokens=3))
    answer = ask(web, stream, "word " * 300)
    error = error_in(answer)
    assert answer.status_code == (200 if stream else 502), "a stream's count comes at its end"
    assert error["code"] == "context_truncated" and error["planned_tokens"] > 250 > error["reported_tokens"] == 3
    assert kept(web) == []


def test_with_a_server_down_answers_go_on_and_health_says_so(behind: Behind) -> None:
    web = behind(dies, says("saved"))
    for number in range(12):  # conversations of which some would go to the first server
        body = {"messages": [{"role": "user", "content": f"hello {number}"}], "stream": number % 2 == 0}
        assert web.post("/v1/chat/completions", json=body).status_code == 200
    health = web.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert [one["state"] for one in health.json()["replicas"]["m"]] == ["down", "up"]
    assert "127.0.0.1" not in health.text
    assert 'ctxkit_upstream_up{model="m",replica="0"} 0.0' in metrics(web)
    assert 'ctxkit_upstream_up{model="m",replica="1"} 1.0' in metrics(web)


def test_with_all_of_them_down_health_is_503(behind: Behind) -> None:
    web = behind(dies, dies)
    assert web.get("/health").json()["status"] == "ok"
    assert ask(web, False).status_code == 502
    health = web.get("/health")
    assert (health.status_code, health.json()["error"]["code"]) == (503, "not_ready")
    refused = ask(web, True)
    assert refused.status_code == 502 and "none of the 2 servers" in refused.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_before_the_first_piece_leaves_nothing_behind(serve: Start, stream: bool) -> None:
    asked, over = threading.Event(), threading.Event()

    def silent(exchange: Exchange) -> None:
        begins()(exchange)
        asked.set()
        while exchange.handler.connection.recv(1):  # until the connection is closed
            pass
        over.set()

    with faulty(silent) as upstream:
        models = Replicas([RemoteModel(upstream.url, "m", window_tokens=1000, async_transport=KeptTransport())])
        service = Service({"m": models})
        port = int(serve(service).root.rpartition(":")[2])
        body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
            assert asked.wait(30)
        assert over.wait(30), "the upstream is left alone"
        while service.gate.running or models.states[0].running:
            threading.Event().wait(0.005)
        assert models.states[0].state == "up" and not models.states[0].failures


def metrics(web: httpx.Client) -> str:
    return web.get("/metrics").text


# --- the store ----------------------------------------------------------------------------------------------------


def stored(serve: Start, path: Path, **settings: Any) -> tuple[httpx.Client, SqliteDatabase]:
    """A server whose model answers, with a session of one turn."""
    database = SqliteDatabase(path, **settings)
    service = Service({"m": ScriptedModel(["an answer " * 50] * 3, window_tokens=5000)}, store=SessionStore(database))
    web = httpx.Client(base_url=serve(service).root, timeout=30)
    web.post("/v1/sessions", json={"id": SESSION})
    assert ask(web, False).status_code == 200
    return web, database


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_another_process_locks_is_a_503_and_then_goes_on(
    serve: Start, tmp_path: Path, stream: bool
) -> None:
    web, _ = stored(serve, tmp_path / "sessions.db", wait_seconds=0.05)
    other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answers = [ask(web, stream), web.post(f"/v1/sessions/{SESSION}/messages", json={"messages": [{"role": "user"}]})]
    other.execute("ROLLBACK")
    other.close()
    assert [error_in(one)["code"] for one in answers] == ["try_again", "try_again"]
    assert [one.status_code for one in answers] == [200 if stream else 503, 503]
    assert answers[1].headers["retry-after"] and str(tmp_path) not in answers[1].text
    assert kept(web) == ["user", "assistant"]
    assert ask(web, stream).status_code == 200 and kept(web) == ["user", "assistant"] * 2
    web.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_disk_is_a_503_and_nothing_is_half_written(serve: Start, tmp_path: Path, stream: bool) -> None:
    web, database = stored(serve, tmp_path / "sessions.db")
    with database.reading() as transaction:
        ((pages,),) = transaction.execute("PRAGMA page_count")
        transaction.execute(f"PRAGMA max_page_count = {pages}")
    many = [{"role": "user", "content": f"{number} " * 400} for number in range(200)]
    answers = [
        ask(web, stream, "long " * 4000),
        web.post(f"/v1/sessions/{SESSION}/messages", json={"messages": many}),
        web.post("/v1/sessions", json={"id": "other", "messages": many}),
    ]
    assert [error_in(one)["code"] for one in answers[1:]] == ["try_again"] * 2, [one.text[-300:] for one in answers]
    assert [one.status_code for one in answers[1:]] == [503, 503]
    assert answers[0].status_code in (200, 400, 503) and '"error"' in answers[0].text
    assert kept(web) == ["user", "assistant"]
    assert web.get("/v1/sessions/other").status_code == 404
    with database.reading() as transaction:
        transaction.execute("PRAGMA max_page_count = 1000000")
    assert ask(web, stream).status_code == 200 and kept(web) == ["user", "assistant"] * 2
    web.close()


def test_a_database_that_was_restarted_is_found_again(serve: Start, postgres: Postgres) -> None:
    database = open_database(postgres.url)
    service = Service({"m": ScriptedModel(lambda asked: "yes")}, store=SessionStore(database))
    server = serve(service)
    acknowledged, refused, stop = [], list[int](), threading.Event()

    def write() -> None:
        with httpx.Client(base_url=server.root, timeout=60) as web:
            session = web.post("/v1/sessions", json={}).json()["id"]
            acknowledged.append((session, said := list[str]()))
            while not stop.is_set() or not said:
                both = [{"role": "user", "content": f"{len(said)} {half}"} for half in "ab"]
                answer = web.post(f"/v1/sessions/{session}/messages", json={"messages": both})
                if answer.is_success:
                    said += [one["content"] for one in both]
                else:
                    refused.append(answer.status_code)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for one in writers:
        one.start()
    while len(acknowledged) < 3 or not all(said for _, said in acknowledged):
        stop.wait(0.01)
    postgres.stop()  # at once, as a crash
    postgres.start()
    before = [len(said) for _, said in acknowledged]
    while not all(len(said) > most for (_, said), most in zip(acknowledged, before, strict=True)):
        stop.wait(0.01)
    stop.set()
    for one in writers:
        one.join()
    with httpx.Client(base_url=server.root, timeout=60) as web:
        for session, said in acknowledged:
            there = [one["content"] for one in web.get(f"/v1/sessions/{session}").json()["messages"]]
            assert set(said) <= set(there) and len(there) % 2 == 0
            assert all(a[:-1] == b[:-1] for a, b in zip(there[::2], there[1::2], strict=True))
            web.delete(f"/v1/sessions/{session}")
    assert set(refused) <= {503}
    database.close()


def test_an_address_of_nobody_is_no_secret_told(serve: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = serve(Service({"m": replicas(f"http://127.0.0.1:{port}/v1")}))
    answer = httpx.post(f"{server.root}/v1/completions", json={"prompt": "x"})
    assert answer.status_code == 502 and str(port) not in answer.text
    assert "no answer from the upstream server: Connection refused" in answer.text
