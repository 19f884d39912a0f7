"""A conversation longer than the window, answered from all of it."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from ctxkit.models.requests import Request
from ctxkit.server import Service
from ctxkit.testing import ScriptedModel
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
FACTS = [f"The code of room {n} is c{n}{n}." for n in range(12)]


def copying(request: Request) -> str:
    """Notes every code that its prompt holds, as a worker and as the manager."""
    text = " ".join(message.content for message in request.messages)
    return " ".join(sorted({word.strip(".") for word in text.split() if word.startswith("c") and word[1:2].isdigit()}))


@pytest.mark.parametrize("stream", [False, True])
def test_all_of_it_is_read_and_the_usage_is_that_of_all_workers(serve: Start, stream: bool) -> None:
    server = serve(Service({"m": ScriptedModel(copying, window_tokens=320)}))
    said = [{"role": "user", "content": f"{fact} " + "and nothing else happened " * 12} for fact in FACTS]
    messages = [one for fact in said for one in (fact, {"role": "assistant", "content": "Noted."})]
    ask = {"role": "user", "content": "Which codes are there?"}
    body = {"messages": [*messages, ask], "max_tokens": 60, "ctxkit": {"overflow": "chain"}}
    if stream:
        pieces = server.client().chat.completions.create(
            model="m", messages=body["messages"], max_tokens=60, stream=True, extra_body={"ctxkit": body["ctxkit"]}
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
    else:
        answer = httpx.post(f"{server.root}/v1/chat/completions", json=body, timeout=30).json()
        text = answer["choices"][0]["message"]["content"]
        assert answer["x_ctxkit"]["chained"] and answer["usage"]["prompt_tokens"] > 320
    assert all(f"c{n}{n}" in text for n in range(12))


def test_what_fits_is_answered_at_once(serve: Start) -> None:
    model = ScriptedModel(["Hello."], window_tokens=320)
    body = {"messages": [{"role": "user", "content": "Hi"}], "ctxkit": {"overflow": "chain"}}
    answer = httpx.post(f"{serve(Service({'m': model})).root}/v1/chat/completions", json=body).json()
    assert len(model.prompts) == 1 and "chained" not in answer["x_ctxkit"]


def test_a_chain_takes_no_tools(serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel(copying, window_tokens=200)}))
    messages = [{"role": role, "content": "word " * 60} for role in ("user", "assistant")] * 4
    body = {"messages": [*messages, {"role": "user", "content": "?"}], "n": 2, "ctxkit": {"overflow": "chain"}}
    answer = httpx.post(f"{server.root}/v1/chat/completions", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "ctxkit.overflow"
