"""`cached_tokens`: what the model says it did not have to read again; 0 where nobody says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ctxkit.models import RemoteModel
from ctxkit.server import Service
from ctxkit.testing import ScriptedModel, tiny_model
from tests.server.running import RunningServer
from tests.servers import OpenAIServer, as_events, as_json, serving

Start = Callable[[Service], RunningServer]
HI = [{"role": "user", "content": "what is said in thirty-two words or more is read once and then is in memory"}]
SAID = {"prompt_tokens": 20, "completion_tokens": 1}


def cached(server: RunningServer) -> tuple[int, int, int]:
    """As chat says it, as a stream of chat does, and as responses do."""
    client = server.client()
    more: dict[str, Any] = {"model": "m", "messages": HI, "max_tokens": 4}
    whole = client.chat.completions.create(**more)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **more))
    item = client.responses.create(model="m", input=HI[0]["content"], max_output_tokens=4)
    return (
        whole.usage.prompt_tokens_details.cached_tokens,
        chunks[-1].usage.prompt_tokens_details.cached_tokens,
        item.usage.input_tokens_details.cached_tokens,
    )


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({**SAID, "prompt_tokens_details": {"cached_tokens": 16}}, 16),
        ({**SAID, "cache_read_input_tokens": 7}, 7),
        ({**SAID, "prompt_tokens_details": {"cached_tokens": 900}}, 20),
        ({**SAID, "prompt_tokens_details": {"cached_tokens": None}}, 0),
        ({**SAID, "prompt_tokens_details": None, "cache_read_input_tokens": "many"}, 0),
        (SAID, 0),
    ],
)
def test_what_the_upstream_says_is_passed_on(serve: Start, usage: dict[str, Any], told: int) -> None:
    def answer(body: dict[str, Any]) -> tuple[str, bytes]:
        said = {"content": "Hello"}
        if body["stream"]:
            choices = [{"delta": said, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}]
            return as_events([*({"choices": [one]} for one in choices), {"choices": [], "usage": usage}])
        return as_json({"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage})

    with serving(OpenAIServer(["m"], answer)) as upstream:
        model = RemoteModel(upstream.url, "m", window_tokens=500, check_truncation=False)
        assert cached(serve(Service({"m": model}))) == (told, told, told)


def test_a_local_model_says_what_of_the_prompt_was_in_memory(serve: Start) -> None:
    model = tiny_model()
    first, again = model.generate(HI), model.generate(HI)
    assert first == again, "how it was made is no part of what it is"
    assert first.cached_tokens == 0 and again.cached_tokens == again.prompt_tokens - 1
    assert set(cached(serve(Service({"m": model})))) == {again.cached_tokens}


def test_several_answers_reuse_what_all_of_them_reused(serve: Start) -> None:
    client = serve(Service({"m": tiny_model()})).client()
    more: dict[str, Any] = {"model": "m", "messages": HI, "max_tokens": 2, "n": 2}
    first = client.chat.completions.create(**more).usage
    assert first.prompt_tokens_details.cached_tokens == 0, "one of them read it"
    again = client.chat.completions.create(**more).usage
    assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1


def test_a_session_has_read_all_of_it() -> None:
    model = tiny_model()
    with model.session() as session:
        session.step(model.prompt_ids(HI))
        reply = session.generate()
        assert reply.cached_tokens == reply.prompt_tokens


def test_a_model_that_does_not_say_has_none(serve: Start) -> None:
    assert cached(serve(Service({"m": ScriptedModel(["a", "b", "c"])}))) == (0, 0, 0)
