"""What a little server answers, and the models that the contract tests run over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stamina

from ctxkit.models import LocalModel, RemoteModel
from ctxkit.protocols import Model
from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_model
from tests.servers import Content, OpenAIServer, as_events, as_json, serving

ANSWER = "Rivers carry water to the sea."


def _answered(body: dict[str, Any]) -> Content:
    text, reason = _cut(ANSWER, body)
    usage = {"prompt_tokens": 11, "completion_tokens": len(text.split())}
    if not body["stream"]:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
        return as_json({"choices": [choice], "usage": usage})
    chunks: list[Any] = [{"choices": [{"delta": {"content": word}}]} for word in _words(text)]
    chunks += [{"choices": [{"delta": {}, "finish_reason": reason}]}, {"choices": [], "usage": usage}]
    return as_events(chunks)


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(" " + word for word in others)]


def _cut(text: str, body: dict[str, Any]) -> tuple[str, str]:
    for stop in body.get("stop", []):
        if stop in text:
            return text[: text.index(stop)], "stop"
    words = _words(text)
    short = "".join(words[: body["max_tokens"]])
    return short, "stop" if short == text else "length"


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    with serving(OpenAIServer(["echo", "other"], _answered)) as running:
        yield running.url


@pytest.fixture(scope="session")
def tiny() -> LocalModel:
    return tiny_model()


@pytest.fixture(params=["scripted", "local", "remote"])
def model(request: pytest.FixtureRequest, tiny: LocalModel, base_url: str) -> Model:
    """Each kind of model. Every one gives the same answer whenever it is asked greedily."""
    make: dict[str, Callable[[], Model]] = {
        "scripted": lambda: ScriptedModel(lambda asked: ANSWER),
        "local": lambda: tiny,
        "remote": lambda: RemoteModel(base_url, "echo", window_tokens=4096, counter=WhitespaceCounter()),
    }
    return make[request.param]()


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Retries happen at once."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
