"""Sessions with an index: the history before the passages stays as it was, and the report says how much that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxkit.models.requests import Request
from ctxkit.server import Service
from ctxkit.server.indexes import GivenDocument, Indexes
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import ScriptedModel, tiny_counter
from tests.server.letters import Letters
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
QUESTIONS = ("What do zebras do?", "What of apples?", "And zebras once more?")


@pytest.fixture
def seen() -> list[Request]:
    return []


@pytest.fixture
def service(tmp_path: Path, seen: list[Request]) -> Service:
    indexes = Indexes(tmp_path / "indexes", Letters())
    texts = {"zebra.txt": "Zebras zigzag.", "apple.txt": "An apple a day."}
    indexes.add("anybody", "zoo", [GivenDocument(source, text, {}) for source, text in texts.items()])
    store = SessionStore(open_database(str(tmp_path / "sessions.db")))

    def answer(request: Request) -> str:
        seen.append(request)
        return f"answer {len(seen)}"

    model = ScriptedModel(answer, counter=tiny_counter(), window_tokens=4000)
    return Service({"m": model}, indexes=indexes, store=store)


def ask(server: RunningServer, session: str, question: str, **wanted: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 20}
    more = {"ctxkit": {"session": session, "index": "zoo", **wanted}}
    answer = httpx.post(f"{server.root}/v1/chat/completions", json={**body, **more}, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["x_ctxkit"])


def begun(server: RunningServer) -> str:
    said = [{"role": "system", "content": "Be brief, and say where you have it from."}]
    return str(httpx.post(f"{server.root}/v1/sessions", json={"messages": said}).json()["id"])


def common(one: Request, other: Request) -> int:
    """Tokens with which both prompts begin."""
    assert one.ids is not None and other.ids is not None
    pairs = zip(one.ids, other.ids, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.ids), len(other.ids)))


def test_the_report_says_what_both_prompts_begin_with(serve: Start, service: Service, seen: list[Request]) -> None:
    server = serve(service)
    session = begun(server)
    told = [ask(server, session, question) for question in QUESTIONS]
    reused = [one["reused_tokens"] for one in told]
    assert reused == [0, common(seen[0], seen[1]), common(seen[1], seen[2])]
    assert 0 < reused[1] < reused[2] < told[2]["prompt_tokens"]
    assert "anew" in told[2]["why"]


def test_the_history_is_sent_as_it_was_and_old_passages_are_not(
    serve: Start, service: Service, seen: list[Request]
) -> None:
    server = serve(service)
    session = begun(server)
    for question in QUESTIONS:
        ask(server, session, question)
    before, last = seen[-1].messages[:-1], seen[-1].messages[-1]
    assert [message.content for message in before] == [
        "Be brief, and say where you have it from.",
        *("What do zebras do?", "answer 1", "What of apples?", "answer 2"),
    ]
    assert "zigzag" in last.content and last.content.endswith(QUESTIONS[-1])


def test_looking_at_a_plan_changes_nothing(serve: Start, service: Service) -> None:
    server = serve(service)
    session = begun(server)
    ask(server, session, QUESTIONS[0])
    body = {"messages": [{"role": "user", "content": "apple?"}], "ctxkit": {"session": session, "index": "zoo"}}
    looked = [httpx.post(f"{server.root}/v1/context/plan", json=body).json()["x_ctxkit"] for _ in range(2)]
    assert looked[0]["reused_tokens"] == looked[1]["reused_tokens"] > 0


def test_a_turn_without_passages_between_is_no_prompt_to_compare_with(serve: Start, service: Service) -> None:
    server = serve(service)
    session = begun(server)
    ask(server, session, QUESTIONS[0])
    ask(server, session, QUESTIONS[1], index=False)
    assert ask(server, session, QUESTIONS[2])["reused_tokens"] == 0


def test_a_session_that_is_forgotten_leaves_no_plan(serve: Start, service: Service) -> None:
    server = serve(service)
    for _ in range(2):
        httpx.post(f"{server.root}/v1/sessions", json={"id": "same"})
        assert ask(server, "same", QUESTIONS[0])["reused_tokens"] == 0
        httpx.delete(f"{server.root}/v1/sessions/same")
