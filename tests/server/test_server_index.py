"""Documents that clients bring: found in answers, kept apart, and below one folder whatever they are called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxkit.server import ServeOptions, Service
from ctxkit.server.indexes import GivenDocument, Indexes, NoSuchIndex
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import ScriptedModel
from tests.server.letters import Letters
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
DOCUMENTS = [
    {"source": "zebra.md", "text": "# Zebras\n\nZebras zigzag.", "metadata": {"year": 2020}},
    {"source": "apple.txt", "text": "An apple a day.", "metadata": {"year": 2021}},
]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    model = ScriptedModel(lambda request: request.messages[-1].content, window_tokens=500)
    return Service(
        {"m": model},
        indexes=Indexes(tmp_path / "indexes", Letters()),
        store=SessionStore(open_database(str(tmp_path / "sessions.db"))),
        options=ServeOptions(api_keys=("one", "two")),
    )


def client(server: RunningServer, key: str) -> httpx.Client:
    return httpx.Client(base_url=server.root, headers={"authorization": f"Bearer {key}"}, timeout=30)


def test_an_index_that_another_process_deleted_is_gone_and_its_successor_is_found(tmp_path: Path) -> None:
    def texts(of: Indexes) -> set[str]:
        with of.opened("owner", "zoo") as index:
            return {hit.chunk.text for hit in index.search("a", k=5)}

    one, other = Indexes(tmp_path, Letters()), Indexes(tmp_path, Letters())
    one.add("owner", "zoo", [GivenDocument("a.txt", "An ape.", {})])
    with other.opened("owner", "zoo") as held:
        one.delete("owner", "zoo")
        with pytest.raises(NoSuchIndex):
            texts(other)
        one.add("owner", "zoo", [GivenDocument("b.txt", "A bat.", {})])
        assert texts(other) == {"A bat."}
        assert held.search("a", k=1)[0].chunk.text == "An ape.", "who had it open may still read it"
    other.add("owner", "zoo", [GivenDocument("c.txt", "A cat.", {})])
    assert texts(one) == {"A bat.", "A cat."}


def test_documents_are_added_found_replaced_and_deleted(serve: Start, service: Service) -> None:
    with client(serve(service), "one") as web:
        assert web.post("/v1/index/zoo/documents", json={"documents": DOCUMENTS}).json()["chunks"] == 2
        found = web.post("/v1/index/zoo/search", json={"query": "zebra zigzag", "k": 1}).json()["data"]
        assert found[0]["chunk"]["source"] == "zebra.md" and found[0]["chunk"]["metadata"]["year"] == 2020
        later = web.post("/v1/index/zoo/search", json={"query": "zebra", "where": {"year": {">=": 2021}}}).json()[
            "data"
        ]
        assert [one["chunk"]["source"] for one in later] == ["apple.txt"]
        again = [{"source": "zebra.md", "text": "Horses gallop."}]
        web.post("/v1/index/zoo/documents", json={"documents": again})
        texts = {one["chunk"]["text"] for one in web.post("/v1/index/zoo/search", json={"query": "a"}).json()["data"]}
        assert texts == {"Horses gallop.", "An apple a day."}
        assert web.post("/v1/index/zoo/delete", json={"sources": ["apple.txt", "nothing"]}).json()["chunks"] == 1
        assert [one["id"] for one in web.get("/v1/index").json()["data"]] == ["zoo"]
        assert web.delete("/v1/index/zoo").status_code == 200 and web.get("/v1/index").json()["data"] == []


def test_an_answer_is_made_from_the_callers_own_index(serve: Start, service: Service) -> None:
    with client(serve(service), "one") as web:
        web.post("/v1/index/zoo/documents", json={"documents": DOCUMENTS})
        session = web.post("/v1/sessions", json={}).json()["id"]
        ask = {"messages": [{"role": "user", "content": "What do zebras do?"}]}
        for extra in ({"index": "zoo"}, {"index": "zoo", "session": session}):
            answer = web.post("/v1/chat/completions", json={**ask, "ctxkit": extra}).json()
            assert "Zebras zigzag." in answer["choices"][0]["message"]["content"]
            assert any("zebra.md" in one["source"] for one in answer["x_ctxkit"]["sources"])
        assert len(web.get(f"/v1/sessions/{session}").json()["messages"]) == 2
        plain = web.post("/v1/chat/completions", json={**ask, "ctxkit": {"index": False}}).json()
        assert plain["x_ctxkit"]["sources"] == []


def test_a_stranger_finds_no_index_and_the_same_name_is_another(serve: Start, service: Service) -> None:
    server = serve(service)
    with client(server, "one") as mine, client(server, "two") as stranger:
        mine.post("/v1/index/zoo/documents", json={"documents": DOCUMENTS})
        ask = {"messages": [{"role": "user", "content": "zebra?"}], "ctxkit": {"index": "zoo"}}
        tries = [
            stranger.post("/v1/index/zoo/search", json={"query": "zebra"}),
            stranger.post("/v1/index/zoo/delete", json={"sources": ["zebra.md"]}),
            stranger.delete("/v1/index/zoo"),
            stranger.post("/v1/chat/completions", json=ask),
            stranger.post("/v1/context/plan", json=ask),
        ]
        assert {one.status_code for one in tries} == {404} and all("zigzag" not in one.text for one in tries)
        stranger.post("/v1/index/zoo/documents", json={"documents": DOCUMENTS[1:]})
        assert len(stranger.post("/v1/index/zoo/search", json={"query": "zebra"}).json()["data"]) == 1
        assert len(mine.post("/v1/index/zoo/search", json={"query": "zebra"}).json()["data"]) == 2


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc", "a.b", "x" * 65, "-a", "a%00b", "a%2fb"])
def test_a_name_never_leads_out_of_the_folder(serve: Start, service: Service, name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with client(serve(service), "one") as web:
        for answer in (
            web.post(f"/v1/index/{name}/documents", json={"documents": DOCUMENTS}),
            web.delete(f"/v1/index/{name}"),
        ):
            assert answer.status_code in (400, 404, 405), answer.text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "document",
    [
        {"source": "a.pdf", "text": "no pdf"},
        {"source": "", "text": "x"},
        {"source": "a", "text": ""},
        {"source": "a.txt", "text": "   "},
    ],
)
def test_what_is_no_document_is_refused_and_nothing_is_written(
    serve: Start, service: Service, document: dict[str, Any]
) -> None:
    with client(serve(service), "one") as web:
        answer = web.post("/v1/index/zoo/documents", json={"documents": [DOCUMENTS[0], document]})
        assert answer.status_code == 400, answer.text
        assert web.post("/v1/index/zoo/search", json={"query": "zebra"}).status_code == 404


def test_readers_and_writers_at_the_same_time(service: Service) -> None:
    indexes, wrong = service.indexes, list[BaseException]()
    assert indexes is not None
    from ctxkit.server.indexes import GivenDocument

    indexes.add("key", "zoo", [GivenDocument("first.txt", "zebra", {})])

    def write(name: int) -> None:
        for n in range(3):
            try:
                indexes.add("key", "zoo", [GivenDocument(f"{name}-{n}.txt", f"text {name} {n}", {})])
            except BaseException as error:
                if not getattr(error, "retryable", False):
                    wrong.append(error)

    def read() -> None:
        for _ in range(10):
            with indexes.opened("key", "zoo") as index:
                if not index.search("zebra", 3):
                    wrong.append(AssertionError("nothing found"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    threads += [threading.Thread(target=read) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
    indexes.close()
