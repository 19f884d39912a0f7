"""A server that cuts the prompt and answers anyway is noticed, on every face; one that does not is left in peace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ctxkit import Budget, fit, question
from ctxkit.errors import ContextTruncatedByServer, RemoteError
from ctxkit.models import RemoteModel
from ctxkit.models.wire import reported_prompt_tokens
from ctxkit.protocols import Counter, Reply
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter, OpenAIChatCounter

WORDS = "The river carries its water to the sea and nobody asks it why. "
Prompt = Any
Ask = Callable[[RemoteModel, Prompt], Reply]


def _generate(model: RemoteModel, prompt: Prompt) -> Reply:
    return model.generate(prompt)


def _agenerate(model: RemoteModel, prompt: Prompt) -> Reply:
    return asyncio.run(model.agenerate(prompt))


def _stream(model: RemoteModel, prompt: Prompt) -> Reply:
    stream = model.stream(prompt)
    list(stream)
    return stream.reply


def _astream(model: RemoteModel, prompt: Prompt) -> Reply:
    async def read() -> Reply:
        stream = model.astream(prompt)
        async for _ in stream:
            pass
        return stream.reply

    return asyncio.run(read())


every_face = pytest.mark.parametrize("ask", [_generate, _agenerate, _stream, _astream])


def _model(counter: Counter, usage: dict[str, Any] | None, **options: Any) -> RemoteModel:
    """A server that reports `usage`, whatever it is asked."""
    extra = {"usage": usage} if usage is not None else {}

    def answer(request: httpx.Request) -> httpx.Response:
        if not json.loads(request.content)["stream"]:
            choice = {"message": {"content": "Because."}, "finish_reason": "stop"}
            return httpx.Response(200, json={"choices": [choice], **extra})
        chunks: list[Any] = [{"choices": [{"delta": {"content": "Because."}, "finish_reason": "stop"}]}]
        chunks += [{"choices": [], **extra}] if extra else []
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode())

    transport = httpx.MockTransport(answer)
    return RemoteModel("http://m.test/v1", "m", window_tokens=8192, counter=counter, transport=transport, **options)


def _prompt_of(tokens: int, counter: Counter) -> str:
    """Words that the counter finds to be a prompt of about so many tokens."""
    words = WORDS.split()
    text = " ".join(words[i % len(words)] for i in range(tokens))
    return text[: len(text) * tokens // counter.count(text)]


def _words(text: str) -> int:
    return len(text.split())


COUNTERS: dict[str, Counter] = {
    "exact": WhitespaceCounter(),
    "exact without ids": OpenAIChatCounter(_words),
    "estimate": EstimatingCounter(),
}
every_counter = pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)


@every_face
@every_counter
def test_2051_reported_of_7900_planned_is_a_cut(ask: Ask, counter: Counter) -> None:
    prompt = _prompt_of(7_900, counter)
    with pytest.raises(ContextTruncatedByServer, match=r"7,9\d\d tokens.*reports 2,051.*num_ctx") as caught:
        ask(_model(counter, {"prompt_tokens": 2_051, "completion_tokens": 2}), prompt)
    error = caught.value
    assert 7_900 <= error.planned_tokens < 8_000
    assert (error.reported_tokens, error.window_tokens, error.retryable) == (2_051, 2_051, False)
    assert isinstance(error, RemoteError)
    assert isinstance(error.reply, Reply)
    assert (error.reply.text, error.reply.prompt_tokens) == ("Because.", 2_051)


@every_face
def test_the_tokens_of_a_plan_are_the_plans_own(ask: Ask) -> None:
    counter = WhitespaceCounter()
    plan = fit([question("word " * 500)], budget=Budget(window_tokens=1000, reserve_tokens=100), counter=counter)
    with pytest.raises(ContextTruncatedByServer) as caught:
        ask(_model(counter, {"prompt_tokens": 256}), plan)
    assert caught.value.planned_tokens == plan.prompt_tokens == 505


@every_face
@every_counter
@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": 0},
        {"prompt_tokens": 7_600},
        {"prompt_tokens": 9_000},
        {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 7_800}},
        {"prompt_tokens": 100, "cache_read_input_tokens": 7_000, "cache_creation_input_tokens": 800},
    ],
    ids=str,
)
def test_a_prompt_that_arrived_raises_no_alarm(ask: Ask, counter: Counter, usage: dict[str, Any] | None) -> None:
    assert ask(_model(counter, usage), _prompt_of(7_900, counter)).text == "Because."


@every_face
@every_counter
def test_a_short_prompt_may_be_counted_a_few_tokens_lower(ask: Ask, counter: Counter) -> None:
    assert ask(_model(counter, {"prompt_tokens": 12}), "The river carries its water to the sea").prompt_tokens == 12


@every_face
def test_the_check_can_be_turned_off(ask: Ask) -> None:
    model = _model(WhitespaceCounter(), {"prompt_tokens": 2_051}, check_truncation=False)
    assert ask(model, "word " * 7_900).prompt_tokens == 2_051


@every_counter
def test_what_only_the_server_can_count_raises_no_alarm(counter: Counter) -> None:
    """An image without a rule, thoughts and a tool call may all be left out of the server's prompt."""
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hmm " * 500}, {"type": "text", "text": "A"}],
        },
    ]
    assert _model(counter, {"prompt_tokens": 40}).generate(chat).text == "Because."
    assert _model(counter, None).generate(chat).prompt_tokens > 0


def test_a_closed_stream_raises_no_alarm() -> None:
    stream = _model(WhitespaceCounter(), {"prompt_tokens": 5}).stream("word " * 500)
    assert next(stream) == "Because."
    stream.close()
    assert stream.reply.finish_reason == "cancelled"


def test_the_answer_of_a_model_may_hold_blocks() -> None:
    content = [{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "Yes."}]
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    model = RemoteModel("http://m.test/v1", "m", window_tokens=100, transport=transport)
    assert model.generate("Hi").text == "Yes."


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({}, None),
        ({"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 9}}, None),
        ({"prompt_tokens": 5}, 5),
    ],
    ids=str,
)
def test_usage_without_prompt_tokens_says_nothing(usage: dict[str, Any], tokens: int | None) -> None:
    assert reported_prompt_tokens(usage) == tokens
