"""The endpoints beside chat."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from ctxkit.server import ServeOptions, Service
from ctxkit.testing import ScriptedModel, tiny_model
from tests.server.letters import Letters
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
HI = [{"role": "user", "content": "Say hi"}]


def service(*lines: str, **options: object) -> Service:
    return Service({"m": ScriptedModel(lines)}, encoder=Letters(), options=ServeOptions(**options))  # type: ignore[arg-type]


def test_a_text_goes_on_whole_and_in_pieces(serve: Start) -> None:
    client = serve(service("once upon a time", "once more")).client()
    whole = client.completions.create(model="m", prompt="Tell", max_tokens=3)
    assert whole.choices[0].text.strip() == "once upon a" and whole.choices[0].finish_reason == "length"
    assert whole.usage and whole.usage.completion_tokens == 3
    pieces = client.completions.create(model="m", prompt="Tell", stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == "once more"


@pytest.mark.parametrize("wrong", [{"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"prompt": "a", "echo": True}])
def test_a_completion_that_cannot_be_done_names_its_field(serve: Start, wrong: dict[str, object]) -> None:
    server = serve(service("x"))
    answer = httpx.post(f"{server.root}/v1/completions", json=wrong)
    assert answer.status_code == 400 and answer.json()["error"]["param"] in wrong


def test_embeddings_come_as_base64_and_as_numbers(serve: Start) -> None:
    client = serve(service()).client()
    by_default = client.embeddings.create(model="letters", input=["abc", "zzz"])
    numbers = client.embeddings.create(model="letters", input=["abc", "zzz"], encoding_format="float")
    for one, other in zip(by_default.data, numbers.data, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, rtol=1e-6)
    assert len(numbers.data[0].embedding) == 26 and by_default.usage.prompt_tokens == 2


@pytest.mark.parametrize("wrong", [{"input": ""}, {"input": []}, {"input": [1]}, {"input": "a", "dimensions": 3}])
def test_embeddings_of_nothing_are_refused(serve: Start, wrong: dict[str, object]) -> None:
    answer = httpx.post(f"{serve(service()).root}/v1/embeddings", json=wrong)
    assert answer.status_code == 400 and answer.json()["error"]["param"] in wrong


def test_reranking_puts_the_likest_first(serve: Start) -> None:
    body = {"query": "aaa", "documents": ["zzz", "aab", "aaa"], "top_n": 2, "return_documents": True}
    found = httpx.post(f"{serve(service()).root}/v1/rerank", json=body).json()["results"]
    assert [one["index"] for one in found] == [2, 1] and found[0]["document"] == {"text": "aaa"}


def test_without_an_encoder_there_are_no_embeddings(serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel(["x"])}))
    assert httpx.post(f"{server.root}/v1/embeddings", json={"input": "a"}).json()["error"]["code"] == "no_encoder"


def test_tokens_are_counted_with_the_models_own_tokenizer(serve: Start) -> None:
    model = tiny_model()
    server = serve(Service({"tiny": model}))
    text = httpx.post(f"{server.root}/tokenize", json={"prompt": "one two"}).json()
    assert text["count"] == len(text["tokens"]) == model.counter.count("one two")
    chat = httpx.post(f"{server.root}/tokenize", json={"messages": HI}).json()
    answer = server.client().chat.completions.create(model="tiny", messages=HI, max_tokens=2)
    assert answer.usage and chat["count"] == answer.usage.prompt_tokens


def test_a_plan_says_what_would_be_sent_and_asks_no_model(serve: Start) -> None:
    model = ScriptedModel([], window_tokens=100)
    server = serve(Service({"m": model}))
    history = [{"role": role, "content": "word " * 30} for role in ("user", "assistant")] * 3
    plan = httpx.post(f"{server.root}/v1/context/plan", json={"messages": [*history, *HI], "max_tokens": 20}).json()
    assert plan["prompt_tokens"] <= 80 and plan["x_ctxkit"]["dropped"] and not model.prompts


def test_a_client_that_goes_away_stops_the_model(serve: Start) -> None:
    stopped, going = threading.Event(), threading.Event()

    class Endless(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            answer = super()._answer(prompt, sampling)

            def pieces(told):  # type: ignore[no-untyped-def]
                try:
                    while not told.is_set():
                        going.set()
                        time.sleep(0.002)
                        yield "word "
                    return "cancelled"
                finally:
                    stopped.set()

            answer.pieces = pieces
            return answer

    made = Service({"m": Endless(lambda request: "x")})
    port = int(serve(made).root.rpartition(":")[2])
    for stream in (True, False):
        stopped.clear()
        going.clear()
        body = json.dumps({"messages": HI, "stream": stream}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            assert going.wait(30)
        assert stopped.wait(30)
    while made.gate.running:
        time.sleep(0.005)


def test_a_request_that_takes_too_long_is_a_504(serve: Start) -> None:
    class Slow(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            answer = super()._answer(prompt, sampling)

            def pieces(told):  # type: ignore[no-untyped-def]
                told.wait(5)
                return "cancelled"
                yield

            answer.pieces = pieces
            return answer

    made = Service({"m": Slow(["x"])}, options=ServeOptions(timeout_seconds=0.1))
    answer = httpx.post(f"{serve(made).root}/v1/chat/completions", json={"messages": HI})
    assert answer.status_code == 504 and answer.headers["x-should-retry"] == "false"
