"""Responses that are stored: the same contract on sqlite and on PostgreSQL, and as OpenAI's own client sees it."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from ctxkit.server import ServeOptions, Service
from ctxkit.server.keys import ANYBODY
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.responses import PreviousResponseNotFound, ResponseNotFound, ResponseStore
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import ScriptedModel
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
def sessions(store_url: str) -> Iterator[SessionStore]:
    database = open_database(store_url)
    yield SessionStore(database)
    database.close()


@pytest.fixture
def store(sessions: SessionStore) -> ResponseStore:
    return ResponseStore(sessions.database)


@pytest.fixture
def owner() -> str:
    return uuid.uuid4().hex


def added(store: ResponseStore, owner: str, name: str, previous: str | None = None, said: str = "") -> str:
    """A response called `name`, asked `NAME?` and answered `NAME!`."""
    body = {"id": name, "previous_response_id": previous, "output": [{"id": f"{name}!", "text": said or f"{name}!"}]}
    store.add(owner, body, [{"id": f"{name}?", "text": f"{name}?"}])
    return name


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


def test_a_response_goes_on_from_those_before_it(store: ResponseStore, owner: str) -> None:
    added(store, owner, "a", said="é\x00 \ud800")
    added(store, owner, "b", "a")
    added(store, owner, "c", "b")
    assert ids(store.conversation(owner, "c")) == ["a?", "a!", "b?", "b!", "c?", "c!"]
    assert ids(store.items(owner, "c")) == ["a?", "a!", "b?", "b!", "c?"]
    assert store.get(owner, "a") == {
        "id": "a",
        "previous_response_id": None,
        "output": [{"id": "a!", "text": "é\x00 \ud800"}],
    }


def test_two_go_on_from_the_same_and_know_nothing_of_each_other(store: ResponseStore, owner: str) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", "a"), ("d", "b")):
        added(store, owner, name, previous)
    assert ids(store.conversation(owner, "d")) == ["a?", "a!", "b?", "b!", "d?", "d!"]
    assert ids(store.conversation(owner, "c")) == ["a?", "a!", "c?", "c!"]


def test_a_long_chain_is_stored_once(store: ResponseStore, owner: str) -> None:
    names = [f"r{n}" for n in range(30)]
    for name, previous in zip(names, [None, *names], strict=False):
        added(store, owner, name, previous)
    assert len(store.conversation(owner, "r29")) == 60
    with store.database.reading() as transaction:
        rows = transaction.execute("SELECT input, output, body FROM responses WHERE owner = ?", owner)
    assert len(rows) == 30 and max(len("".join(row)) for row in rows) < 2 * min(len("".join(row)) for row in rows)


def test_nobody_sees_what_is_not_his(store: ResponseStore, owner: str) -> None:
    added(store, owner, "mine")
    other = f"other {owner}"
    for act in (store.get, store.items, store.delete):
        with pytest.raises(ResponseNotFound):
            act(other, "mine")
    with pytest.raises(PreviousResponseNotFound):
        store.conversation(other, "mine")
    with pytest.raises(PreviousResponseNotFound):
        added(store, other, "his", "mine")
    added(store, other, "mine", said="another")  # the same name is another response for another owner
    added(store, other, "his", "mine")
    assert [item["text"] for item in store.conversation(other, "his")] == ["mine?", "another", "his?", "his!"]
    assert ids(store.conversation(owner, "mine")) == ["mine?", "mine!"]


@pytest.mark.parametrize("name", ["", "none", "a\x00", "é\ud800", "%", "' OR 1=1 --"])
def test_a_response_that_is_not_there_is_not_found(store: ResponseStore, owner: str, name: str) -> None:
    added(store, owner, "a")
    for act in (store.get, store.items, store.delete):
        with pytest.raises(ResponseNotFound):
            act(owner, name)
    with pytest.raises(PreviousResponseNotFound):
        store.conversation(owner, name)


def test_nobody_goes_on_over_a_hole(store: ResponseStore, owner: str) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        added(store, owner, name, previous)
    store.delete(owner, "b")
    with pytest.raises(ResponseNotFound):
        store.get(owner, "b")
    with pytest.raises(PreviousResponseNotFound, match="'b', which was deleted"):
        store.conversation(owner, "c")
    with pytest.raises(PreviousResponseNotFound):
        added(store, owner, "late", "b")  # it was being answered while the one before it was deleted
    assert store.get(owner, "c")["id"] == "c" and ids(store.items(owner, "c")) == ["c?"]
    assert ids(store.conversation(owner, "a")) == ["a?", "a!"]


def test_what_is_deleted_leaves_nothing_behind(store: ResponseStore, owner: str) -> None:
    added(store, owner, "a")
    added(store, owner, "b", "a")
    for name in "ab":
        store.delete(owner, name)
    with store.database.reading() as transaction:
        for table in ("responses", "response_trees"):
            assert transaction.execute(f"SELECT * FROM {table} WHERE owner = ?", owner) == []


def test_a_tree_is_swept_when_nobody_went_on_in_it_for_so_long(store: ResponseStore, owner: str) -> None:
    for name, previous in (("old", None), ("left", None), ("older", "old")):
        added(store, owner, name, previous)
    with store.database.writing() as transaction:
        transaction.execute("UPDATE response_trees SET updated = updated - 7200 WHERE owner = ?", owner)
    added(store, owner, "new", "old")
    assert store.delete_older(3600) == 1
    assert ids(store.conversation(owner, "new")) == ["old?", "old!", "new?", "new!"]
    assert store.get(owner, "older")
    with pytest.raises(ResponseNotFound):
        store.get(owner, "left")


def test_many_go_on_from_one_at_the_same_time(store: ResponseStore, owner: str) -> None:
    added(store, owner, "root")

    def go_on(name: int) -> None:
        previous = "root"
        for n in range(4):
            previous = added(store, owner, f"{name}-{n}", previous)

    writers = [threading.Thread(target=go_on, args=(name,)) for name in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for name in range(5):
        chain = [f"{name}-{n}" for n in range(4)]
        assert ids(store.conversation(owner, chain[-1]))[::2] == [f"{one}?" for one in ("root", *chain)]


# --- as the client sees it --------------------------------------------------------------------------------------------


class Kept:
    """A server with a store and two keys, whose model says how many messages it saw."""

    def __init__(self, serve: Start, sessions: SessionStore, *lines: Any) -> None:
        keys = (uuid.uuid4().hex, uuid.uuid4().hex)
        answers: Any = list(lines) or (lambda request: f"seen {len(request.messages)}")
        self.model = ScriptedModel(answers, window_tokens=400)
        self.server = serve(Service({"m": self.model}, store=sessions, options=ServeOptions(api_keys=keys)))
        self.mine, self.stranger = (self.server.client(key) for key in keys)

    def seen(self) -> list[tuple[str, str]]:
        """By the model, at last."""
        return [(message.role, str(message.content)) for message in self.model.prompts[-1].messages]


@pytest.fixture
def kept(serve: Start, sessions: SessionStore) -> Kept:
    return Kept(serve, sessions)


def test_a_conversation_goes_on_without_its_instructions(kept: Kept) -> None:
    first = kept.mine.responses.create(model="m", input="one", instructions="Be brief.")
    second = kept.mine.responses.create(model="m", input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id and second.output_text == "seen 3"
    assert kept.seen() == [("user", "one"), ("assistant", "seen 2"), ("user", "two")]
    other = kept.mine.responses.create(
        model="m", input="three", instructions="Be kind.", previous_response_id=first.id, store=False
    )
    assert kept.seen() == [("system", "Be kind."), ("user", "one"), ("assistant", "seen 2"), ("user", "three")]
    with pytest.raises(openai.NotFoundError):
        kept.mine.responses.retrieve(other.id)


def test_a_stream_is_stored_as_it_ended(kept: Kept) -> None:
    first = kept.mine.responses.create(model="m", input="one")
    with kept.mine.responses.stream(model="m", input="two", previous_response_id=first.id) as stream:
        told = stream.get_final_response()
    again = kept.mine.responses.retrieve(told.id)
    assert again.model_dump(exclude={"output"}) == told.model_dump(exclude={"output"})
    assert again.output_text == told.output_text == "seen 3" and again.output[0].id == told.output[0].id
    kept.mine.responses.create(model="m", input="three", previous_response_id=told.id, stream=False)
    assert [text for _, text in kept.seen()] == ["one", "seen 1", "two", "seen 3", "three"]


def test_the_result_of_a_tool_is_all_that_needs_to_be_sent(serve: Start, sessions: SessionStore) -> None:
    kept = Kept(serve, sessions, [CALL], "Blue.", [CALL])
    first = kept.mine.responses.create(model="m", input="What colour?", tools=[TOOL])
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "blue"}
    second = kept.mine.responses.create(model="m", input=[result], tools=[TOOL], previous_response_id=first.id)
    assert second.output_text == "Blue." and [role for role, _ in kept.seen()] == ["user", "assistant", "tool"]
    with kept.mine.responses.stream(model="m", input="Again?", tools=[TOOL]) as stream:
        streamed = stream.get_final_response()
    (call,) = kept.mine.responses.retrieve(streamed.id).output
    assert call.model_dump().items() <= streamed.output[0].model_dump().items()


def test_the_items_come_in_pages(kept: Kept) -> None:
    block = {"role": "user", "content": [{"type": "input_text", "text": "two"}]}
    first = kept.mine.responses.create(model="m", input="one")
    given = [block, {"role": "assistant", "content": "so"}, {**block, "id": "given"}]
    second = kept.mine.responses.create(model="m", input=given, previous_response_id=first.id)  # type: ignore[arg-type]
    listed = list(kept.mine.responses.input_items.list(second.id, limit=2, order="asc"))
    assert [item.content[0].text for item in listed] == ["one", "seen 1", "two", "so", "two"]  # type: ignore[union-attr]
    assert len({item.id for item in listed}) == 5 and [item.role for item in listed][1:4] == [  # type: ignore[union-attr]
        "assistant",
        "user",
        "assistant",
    ]
    latest = kept.mine.responses.input_items.list(second.id, limit=2)
    assert latest.has_more and [item.id for item in latest.data] == [listed[4].id, listed[3].id]
    with pytest.raises(openai.BadRequestError, match="after"):
        kept.mine.responses.input_items.list(second.id, after="nothing")


def test_a_server_that_starts_forgets_what_is_old(serve: Start, sessions: SessionStore, store: ResponseStore) -> None:
    added(store, ANYBODY, old := uuid.uuid4().hex)
    with store.database.writing() as transaction:
        transaction.execute("UPDATE response_trees SET updated = 0 WHERE id = ?", old)
    added(store, ANYBODY, new := uuid.uuid4().hex)
    options = ServeOptions(keep_sessions_days=1)
    client = serve(Service({"m": ScriptedModel([])}, store=sessions, options=options)).client()
    with pytest.raises(openai.NotFoundError):
        while client.responses.retrieve(old):
            pass
    assert client.responses.retrieve(new).id == new


def test_half_a_character_comes_back_as_it_was_sent(kept: Kept) -> None:
    web = httpx.Client(base_url=kept.server.root, headers={"authorization": f"Bearer {kept.mine.api_key}"})
    web.headers["content-type"] = "application/json"
    body = {"input": [{"role": "user", "content": "half \ud800"}], "metadata": {"half": "\ud800"}}
    answer = json.loads(web.post("/v1/responses", content=json.dumps(body)).text)
    items = json.loads(web.get(f"/v1/responses/{answer['id']}/input_items").text)
    assert items["data"][0]["content"][0]["text"] == "half \ud800"
    assert json.loads(web.get(f"/v1/responses/{answer['id']}").text) == answer
    messages = {"messages": [{"role": "user", "content": "half \ud800"}]}
    session = web.post("/v1/sessions", content=json.dumps(messages)).json()["id"]
    assert json.loads(web.get(f"/v1/sessions/{session}").text)["messages"] == messages["messages"]
    web.close()


def test_what_was_forgotten_is_gone(kept: Kept) -> None:
    answer = kept.mine.responses.create(model="m", input="one")
    kept.mine.responses.delete(answer.id)
    for act in (kept.mine.responses.retrieve, kept.mine.responses.delete, kept.mine.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as gone:
            act(answer.id)
        assert gone.value.code == "response_not_found" and gone.value.param == "response_id"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stranger_learns_nothing(kept: Kept, stream: bool) -> None:
    secret = kept.mine.responses.create(model="m", input="my secret").id
    told = set()
    for name in (secret, "resp_none"):
        with pytest.raises(openai.NotFoundError) as refusal:
            kept.stranger.responses.create(model="m", input="what?", previous_response_id=name, stream=stream)
        assert refusal.value.code == "previous_response_not_found"
        assert refusal.value.param == "previous_response_id"
        told.add(refusal.value.message.replace(name, "ID"))
    assert len(told) == 1, "another's response and none are told apart"
    for act in (kept.stranger.responses.retrieve, kept.stranger.responses.delete):
        with pytest.raises(openai.NotFoundError):
            act(secret)
    with pytest.raises(openai.NotFoundError):
        kept.stranger.responses.input_items.list(secret)
    assert len(kept.model.prompts) == 1 and kept.mine.responses.retrieve(secret).output_text == "seen 1"


def test_a_session_keeps_its_turns_itself(kept: Kept) -> None:
    web = httpx.Client(base_url=kept.server.root, headers={"authorization": f"Bearer {kept.mine.api_key}"})
    session = web.post("/v1/sessions", json={}).json()["id"]
    body: dict[str, Any] = {"input": "one", "ctxkit": {"session": session}}
    answer = web.post("/v1/responses", json=body).json()
    assert answer["store"] is False and web.get(f"/v1/responses/{answer['id']}").status_code == 404
    both = web.post("/v1/responses", json={**body, "previous_response_id": answer["id"]})
    assert both.status_code == 400 and both.json()["error"]["param"] == "previous_response_id"
    whole = web.post("/v1/responses", json={"input": "one"}).json()
    assert whole["store"] is True
    assert web.get(f"/v1/responses/{whole['id']}", params={"stream": True}).json()["error"]["param"] == "stream"
    web.close()


def test_a_stream_that_the_client_drops_is_not_stored(serve: Start, sessions: SessionStore) -> None:
    stopped = threading.Event()

    class Endless(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            answer = super()._answer(prompt, sampling)

            def pieces(told):  # type: ignore[no-untyped-def]
                try:
                    while not told.wait(0.002):
                        yield "word "
                    return "cancelled"
                finally:
                    stopped.set()

            answer.pieces = pieces
            return answer

    key = uuid.uuid4().hex
    service = Service({"m": Endless(lambda request: "x")}, store=sessions, options=ServeOptions(api_keys=(key,)))
    client = serve(service).client(key)
    with client.responses.create(model="m", input="one", stream=True) as stream:
        dropped = next(event.response.id for event in stream if event.type == "response.created")
    assert stopped.wait(30)
    while service.gate.running:
        stopped.wait(0.005)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(dropped)


def test_the_document_names_what_there_is(serve: Start) -> None:
    paths = httpx.get(f"{serve(Service({'m': ScriptedModel([])})).root}/openapi.json").json()["paths"]
    one, items = paths["/v1/responses/{response_id}"], paths["/v1/responses/{response_id}/input_items"]
    assert one.keys() == {"get", "delete"} and {parameter["name"] for parameter in items["get"]["parameters"]} == {
        "response_id",
        "after",
        "limit",
        "order",
    }
    for operation in (*one.values(), *items.values()):
        assert {"200", "401", "404", "501"} <= operation["responses"].keys() and "422" not in operation["responses"]


def test_a_server_without_a_store_says_so(serve: Start) -> None:
    client = serve(Service({"m": ScriptedModel(["one"])})).client()
    answer = client.responses.create(model="m", input="x", store=True)
    assert answer.model_extra and answer.model_extra["store"] is False
    with pytest.raises(openai.BadRequestError, match="--store") as refusal:
        client.responses.create(model="m", input="x", previous_response_id=answer.id)
    assert refusal.value.param == "previous_response_id"
    with pytest.raises(openai.InternalServerError) as missing:
        client.responses.retrieve(answer.id)
    assert (
        missing.value.status_code == 501 and json.loads(missing.value.response.text)["error"]["code"] == "no_responses"
    )
