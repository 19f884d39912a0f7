"""Sessions: the same contract on sqlite and on PostgreSQL, and through the endpoints."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxkit.errors import StoreError
from ctxkit.server import ServeOptions, Service
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionConflict, SessionNotFound, SessionStore
from ctxkit.testing import ScriptedModel
from tests.postgres import Postgres
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


@pytest.fixture
def store(store_url: str) -> Iterator[SessionStore]:
    database = open_database(store_url)
    yield SessionStore(database)
    database.close()


@pytest.fixture
def owner() -> str:
    return uuid.uuid4().hex


def test_what_was_appended_is_there_in_order(store: SessionStore, owner: str) -> None:
    row = store.create(owner, metadata={"title": "T"})
    store.append(owner, row.id, said("one", "two"))
    assert store.append(owner, row.id, said("thr\u00e9\x00e \ud800"), length=2).length == 3
    assert [one["content"] for one in store.messages(owner, row.id)] == ["one", "two", "thr\u00e9\x00e \ud800"]
    assert store.messages(owner, row.id, 2) == said("thr\u00e9\x00e \ud800")
    assert store.get(owner, row.id).metadata == {"title": "T"}


def test_nobody_sees_what_is_not_his(store: SessionStore, owner: str) -> None:
    row = store.create(owner, "mine")
    store.append(owner, "mine", said("secret"))
    for act in (
        lambda: store.get("other" + owner, "mine"),
        lambda: store.messages("other" + owner, "mine"),
        lambda: store.append("other" + owner, "mine", said("x")),
        lambda: store.fork("other" + owner, "mine"),
        lambda: store.delete("other" + owner, "mine"),
    ):
        with pytest.raises(SessionNotFound):
            act()
    assert store.sessions("other" + owner) == [] and [one.id for one in store.sessions(owner)] == [row.id]
    store.create("other" + owner, "mine")  # the same name is free for another owner
    assert store.messages(owner, "mine") == said("secret")


def test_an_append_to_another_length_changes_nothing(store: SessionStore, owner: str) -> None:
    row = store.create(owner)
    store.append(owner, row.id, said("one"))
    with pytest.raises(SessionConflict, match="1 messages, not 0"):
        store.append(owner, row.id, said("late"), length=0)
    assert store.messages(owner, row.id) == said("one")
    with pytest.raises(SessionConflict):
        store.create(owner, row.id)


def test_many_writers_lose_nothing_and_keep_their_messages_together(store: SessionStore, owner: str) -> None:
    row = store.create(owner)

    def write(name: int) -> None:
        for n in range(5):
            store.append(owner, row.id, said(f"{name} {n} a", f"{name} {n} b"))

    writers = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    texts = [one["content"] for one in store.messages(owner, row.id)]
    assert len(texts) == 60 == store.get(owner, row.id).length
    assert all(
        a[:-1] == b[:-1] and a.endswith("a") and b.endswith("b") for a, b in zip(texts[::2], texts[1::2], strict=True)
    )


def test_a_fork_goes_its_own_way(store: SessionStore, owner: str) -> None:
    row = store.create(owner)
    store.append(owner, row.id, said("one", "two", "three"))
    store.originals(owner, row.id).put("key", "long\x00text")
    fork = store.fork(owner, row.id, length=2)
    store.append(owner, fork.id, said("other"))
    assert [one["content"] for one in store.messages(owner, fork.id)] == ["one", "two", "other"]
    assert len(store.messages(owner, row.id)) == 3
    assert store.originals(owner, fork.id).get("key") == "long\x00text"


def test_what_is_deleted_is_gone_with_its_originals(store: SessionStore, owner: str) -> None:
    row = store.create(owner)
    store.append(owner, row.id, said("one"))
    store.originals(owner, row.id).put("key", "text")
    store.delete(owner, row.id)
    assert store.sessions(owner) == [] and store.originals(owner, row.id).keys() == ()
    store.create(owner, row.id)
    assert store.messages(owner, row.id) == []


def test_old_sessions_are_swept(store: SessionStore, owner: str) -> None:
    row = store.create(owner)
    assert store.delete_older(3600) == 0 and store.delete_older(-1) >= 1
    with pytest.raises(SessionNotFound):
        store.get(owner, row.id)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x" * 200, "a b"])
def test_names_that_are_none_are_refused(store: SessionStore, owner: str, name: str) -> None:
    with pytest.raises(ValueError, match="letters"):
        store.create(owner, name or "?")


def test_a_database_that_was_restarted_is_found_again(postgres: Postgres, owner: str) -> None:
    store = SessionStore(open_database(postgres.url))
    row = store.create(owner)
    store.append(owner, row.id, said("before"))
    postgres.stop()
    postgres.start()
    assert store.messages(owner, row.id) == said("before")
    store.append(owner, row.id, said("after"))
    assert len(store.messages(owner, row.id)) == 2
    store.database.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes " * 1000)
    with pytest.raises(StoreError):
        SessionStore(open_database(str(tmp_path / "notes")))
    assert (tmp_path / "notes").read_text().startswith("my notes")


# --- through the endpoints --------------------------------------------------------------------------------------------


@pytest.fixture
def kept(store: SessionStore) -> Service:
    options = ServeOptions(api_keys=(uuid.uuid4().hex, uuid.uuid4().hex))
    model = ScriptedModel(lambda request: f"answer {len(request.messages)}", window_tokens=300)
    return Service({"m": model}, store=store, options=options)


def client(server: RunningServer, key: int) -> httpx.Client:
    header = {"authorization": f"Bearer {server.service.options.api_keys[key]}"}
    return httpx.Client(base_url=server.root, headers=header)


def test_a_session_goes_on_and_keeps_its_beginning(serve: Start, kept: Service) -> None:
    with client(serve(kept), 0) as web:
        session = web.post("/v1/sessions", json={"messages": [{"role": "system", "content": "Be brief."}]}).json()["id"]
        for turn in range(3):
            body = {"messages": said(f"question {turn}"), "ctxkit": {"session": session}, "stream": turn == 1}
            answer = web.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
        told = answer.json()["x_ctxkit"]
        assert told["session"] == session and told["reused_tokens"] > 0
        messages = web.get(f"/v1/sessions/{session}").json()["messages"]
        assert [one["role"] for one in messages] == ["system", *["user", "assistant"] * 3]


def test_a_long_session_is_fitted_and_what_was_left_out_can_be_had_back(serve: Start, kept: Service) -> None:
    with client(serve(kept), 0) as web:
        session = web.post("/v1/sessions", json={"id": "long"}).json()["id"]
        words = " ".join(f"word{n}" for n in range(40))
        for turn in range(12):
            body = {"messages": said(f"{turn} {words}"), "max_tokens": 30, "ctxkit": {"session": session}}
            answer = web.post("/v1/chat/completions", json=body).json()
            assert answer["usage"]["prompt_tokens"] <= 270
        left_out = answer["x_ctxkit"]["dropped"] + answer["x_ctxkit"]["reduced"]
        text = web.post("/v1/context/expand", json={"session": session, "ref": left_out[0]["id"]}).json()["text"]
        assert text in {f"{turn} {words}" for turn in range(12)} | {f"answer {n}" for n in range(30)}
        assert web.post("/v1/context/expand", json={"session": session, "ref": "m999"}).status_code == 400


def test_a_session_that_does_not_fit_is_refused_where_that_is_asked_for(serve: Start, kept: Service) -> None:
    with client(serve(kept), 0) as web:
        history = [{"role": role, "content": "word " * 60} for role in ("user", "assistant")] * 4
        session = web.post("/v1/sessions", json={"messages": history}).json()["id"]
        body = {"messages": said("?"), "max_tokens": 20, "ctxkit": {"session": session, "overflow": "refuse"}}
        error = web.post("/v1/chat/completions", json=body).json()["error"]
        assert error["code"] == "context_length_exceeded" and error["minimum_feasible"] > 300
        assert len(web.get(f"/v1/sessions/{session}").json()["messages"]) == 8


def test_a_stranger_learns_nothing_from_any_endpoint(serve: Start, kept: Service) -> None:
    server = serve(kept)
    with client(server, 0) as mine, client(server, 1) as stranger:
        session = mine.post("/v1/sessions", json={"messages": said("my secret")}).json()["id"]
        chat = {"messages": said("what?"), "ctxkit": {"session": session}}
        tries = [
            stranger.get(f"/v1/sessions/{session}"),
            stranger.post(f"/v1/sessions/{session}/messages", json={"messages": said("x")}),
            stranger.post(f"/v1/sessions/{session}/fork", json={}),
            stranger.delete(f"/v1/sessions/{session}"),
            stranger.post("/v1/context/expand", json={"session": session, "ref": "m0"}),
            stranger.post("/v1/chat/completions", json=chat),
            stranger.post("/v1/chat/completions", json={**chat, "stream": True}),
        ]
        assert {one.status_code for one in tries} == {404}
        assert all("secret" not in one.text for one in tries)
        assert stranger.get("/v1/sessions").json()["data"] == []
        assert len(mine.get(f"/v1/sessions/{session}").json()["messages"]) == 1


def test_two_answers_to_one_session_do_not_mix(serve: Start, store: SessionStore, owner: str) -> None:
    both = threading.Barrier(2, timeout=10)

    def meeting(request: object) -> str:
        both.wait()
        return "done"

    with httpx.Client(base_url=serve(Service({"m": ScriptedModel(meeting)}, store=store)).root, timeout=30) as web:
        session = web.post("/v1/sessions", json={}).json()["id"]
        statuses: list[int] = []
        body = {"messages": said("go"), "ctxkit": {"session": session}}
        asking = [
            threading.Thread(target=lambda: statuses.append(web.post("/v1/chat/completions", json=body).status_code))
            for _ in range(2)
        ]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert sorted(statuses) == [200, 409]
        assert len(web.get(f"/v1/sessions/{session}").json()["messages"]) == 2
        web.delete(f"/v1/sessions/{session}")


def test_a_server_without_a_store_says_so(serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel(["x"])}))
    assert httpx.post(f"{server.root}/v1/sessions", json={}).json()["error"]["code"] == "no_sessions"
    body = {"messages": said("x"), "ctxkit": {"session": "a"}}
    assert httpx.post(f"{server.root}/v1/chat/completions", json=body).status_code == 501
