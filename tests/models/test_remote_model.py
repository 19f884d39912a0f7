"""RemoteModel: every way a server can answer, through a mock transport; both faces go through the same cases."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from ctxkit.errors import RemoteError, RemoteRejected, RemoteTimeout, RemoteUnavailable
from ctxkit.models import RemoteModel
from ctxkit.models.requests import Request
from ctxkit.models.wire import ChatAnswer, EventParser, StreamReader
from ctxkit.protocols import PromptMessage, Reply, Sampling, Segment, TokenLogprob
from ctxkit.testing import WhitespaceCounter

KEY = "sk-very-secret"
Handler = Callable[[httpx.Request], httpx.Response]


def _model(handler: Handler, **options: Any) -> RemoteModel:
    options = {"window_tokens": 100, "counter": WhitespaceCounter(), "api_key": KEY, **options}
    return RemoteModel("http://model.test/v1/", "m", transport=httpx.MockTransport(handler), **options)


def _generate(model: RemoteModel) -> Reply:
    return model.generate("Hi")


def _agenerate(model: RemoteModel) -> Reply:
    return asyncio.run(model.agenerate("Hi"))


def _stream(model: RemoteModel) -> Reply:
    stream = model.stream("Hi")
    text = "".join(stream)
    assert text == stream.reply.text
    return stream.reply


def _astream(model: RemoteModel) -> Reply:
    async def read() -> Reply:
        stream = model.astream("Hi")
        text = "".join([piece async for piece in stream])
        assert text == stream.reply.text
        return stream.reply

    return asyncio.run(read())


FACES = [_generate, _agenerate, _stream, _astream]
STREAMS = [_stream, _astream]
every_face = pytest.mark.parametrize("ask", FACES)
every_stream = pytest.mark.parametrize("ask", STREAMS)
Ask = Callable[[RemoteModel], Reply]


def _events(*chunks: Any, done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"] * done
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content="".join(lines).encode())


def _delta(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _answer(request: httpx.Request, text: str = "Hello there", **usage: int) -> httpx.Response:
    """The same answer, streamed or not, as asked."""
    extra = {"usage": usage} if usage else {}
    if json.loads(request.content)["stream"]:
        return _events(_delta(content=text), _delta("stop"), {"choices": [], **extra})
    return httpx.Response(200, json={"choices": [{"message": {"content": text}, "finish_reason": "stop"}], **extra})


class Failing:
    """Fails with each of `responses` in turn, then answers."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.responses = list(responses)
        self.calls = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if not self.responses:
            return _answer(request)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response


@every_face
def test_usage_is_the_servers(ask: Ask) -> None:
    model = _model(lambda request: _answer(request, prompt_tokens=7, completion_tokens=5))
    assert ask(model) == Reply("Hello there", "stop", 7, 5, "m")


@every_face
def test_without_usage_the_counter_counts(ask: Ask) -> None:
    assert ask(_model(_answer)) == Reply("Hello there", "stop", 6, 2, "m")


def test_the_request_says_what_was_asked() -> None:
    seen: list[httpx.Request] = []

    def keep(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return _answer(request)

    model = _model(keep, extra_body={"min_p": 0.1})
    model.generate("Hi", Sampling(max_tokens=9, temperature=0.5, top_p=0.8, top_k=3, stop=("X",), seed=1))
    _stream(model)
    first, second = (json.loads(request.content) for request in seen)
    assert str(seen[0].url) == "http://model.test/v1/chat/completions"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    expected = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.8, "top_k": 3, "stop": ["X"], "seed": 1, "min_p": 0.1}
    assert expected.items() <= first.items()
    assert first["messages"] == [{"role": "user", "content": "Hi"}]
    assert (first["stream"], second["stream"]) == (False, True)
    assert second["stream_options"] == {"include_usage": True}
    assert {"stop", "seed", "top_k", "tools"}.isdisjoint(second)


def test_logprobs_form_and_tool_choice_are_asked_for_and_left_out_where_not_wanted() -> None:
    seen: list[dict[str, Any]] = []

    def keep(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return _answer(request)

    form = {"type": "json_object"}
    tool = {"type": "function", "function": {"name": "now"}}
    asked = Request((PromptMessage("user", (Segment("Hi"),)),), (tool,))
    model = _model(keep)
    model.generate(asked, Sampling(logprobs=3, response_format=form, tool_choice="required"))
    model.generate("Hi", Sampling(logprobs=0, tool_choice="none"))
    model.generate("Hi")
    wanted = {"logprobs": True, "top_logprobs": 3, "response_format": form, "tool_choice": "required"}
    assert wanted.items() <= seen[0].items()
    assert seen[1]["logprobs"] is True
    assert {"top_logprobs", "response_format", "tool_choice"}.isdisjoint(seen[1])
    assert {"logprobs", "top_logprobs", "response_format", "tool_choice"}.isdisjoint(seen[2])


@every_face
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_logprobs_and_thinking_that_a_server_gives_are_in_the_reply(ask: Ask, name: str) -> None:
    entries = [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1}]}, {"token": "!"}]

    def answer(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["stream"]:
            said = {**_delta(content="Hi"), "usage": {}}
            said["choices"][0]["logprobs"] = {"content": entries}
            return _events(_delta(**{name: "Hm"}), said, _delta("stop", **{name: {"odd": 1}}))
        choice = {"message": {"content": "Hi", name: "Hm"}, "finish_reason": "stop", "logprobs": {"content": entries}}
        return httpx.Response(200, json={"choices": [choice]})

    reply = ask(_model(answer))
    assert (reply.text, reply.reasoning) == ("Hi", "Hm")
    assert reply.logprobs == (TokenLogprob("Hi", -0.5, top=(TokenLogprob("Ho", -1.0),)),)


@every_face
@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "words"),
    [
        (400, {"error": {"message": "too long", "code": "ctx_length"}}, RemoteRejected, "ctx_length", "too long"),
        (401, {"error": {"message": f"bad key {KEY}", "type": "auth"}}, RemoteRejected, "auth", r"bad key \*\*\*"),
        (404, {"object": "error", "message": "no model", "code": 40401}, RemoteRejected, "40401", "no model"),
        (404, {"error": "model not found"}, RemoteRejected, None, "model not found"),
        (422, {"detail": [{"loc": ["body"]}]}, RemoteRejected, None, "loc"),
        (413, "<html>big</html>", RemoteRejected, None, "big"),
        (307, "", RemoteRejected, None, "base_url"),
        (408, {}, RemoteTimeout, None, "408"),
        (504, "", RemoteTimeout, None, "no message"),
        (429, {"error": {"message": "slow down"}}, RemoteUnavailable, None, "slow down"),
        (503, "", RemoteUnavailable, None, "503"),
    ],
)  # fmt: skip
def test_an_error_answer_is_a_typed_error(
    no_waiting: None, ask: Ask, status: int, body: Any, kind: type[RemoteError], code: str | None, words: str
) -> None:
    content = {"json": body} if isinstance(body, dict) else {"text": body}
    headers = {"location": "http://elsewhere.test"} if status == 307 else {}
    with pytest.raises(kind, match=words) as caught:
        ask(_model(lambda request: httpx.Response(status, headers=headers, **content)))
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.retryable == (kind is not RemoteRejected)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in shown


@every_face
@pytest.mark.parametrize(
    ("error", "kind"),
    [(httpx.ReadTimeout("slow"), RemoteTimeout), (httpx.ConnectError("refused"), RemoteUnavailable)],
)
def test_what_never_answers_is_a_typed_error(
    no_waiting: None, ask: Ask, error: Exception, kind: type[RemoteError]
) -> None:
    handler = Failing(*[error] * 3)
    with pytest.raises(kind, match=r"model\.test"):
        ask(_model(handler))
    assert handler.calls == 3


@every_face
def test_a_retryable_error_is_tried_again(no_waiting: None, ask: Ask) -> None:
    handler = Failing(httpx.Response(503), httpx.ReadTimeout("slow"))
    assert ask(_model(handler)).text == "Hello there"
    assert handler.calls == 3


@every_face
def test_a_refusal_is_not_tried_again(no_waiting: None, ask: Ask) -> None:
    handler = Failing(httpx.Response(400))
    with pytest.raises(RemoteRejected):
        ask(_model(handler))
    assert handler.calls == 1


@every_face
def test_retry_after_is_waited_for(ask: Ask) -> None:
    handler = Failing(httpx.Response(429, headers={"retry-after": "0"}))  # without it the wait would be half a second
    assert ask(_model(handler)).text == "Hello there"
    assert handler.calls == 2


@every_face
def test_a_retry_after_of_an_hour_is_not_waited_for(ask: Ask) -> None:
    handler = Failing(httpx.Response(429, headers={"retry-after": "3600"}))
    with pytest.raises(RemoteUnavailable):
        ask(_model(handler))
    assert handler.calls == 1


@every_face
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"choices": []}'])
def test_a_200_that_is_no_answer_is_an_error(no_waiting: None, ask: Ask, body: bytes) -> None:
    with pytest.raises(RemoteError):
        ask(_model(lambda request: httpx.Response(200, content=body, headers={"content-type": "application/json"})))


@every_face
def test_an_error_with_status_200_is_an_error(no_waiting: None, ask: Ask) -> None:
    body = {"error": {"message": "overloaded", "code": 503}}
    with pytest.raises(RemoteUnavailable, match="overloaded"):
        ask(_model(lambda request: httpx.Response(200, json=body)))


@every_stream
def test_an_error_after_the_first_piece_is_raised_and_not_tried_again(no_waiting: None, ask: Ask) -> None:
    calls = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return _events(_delta(content="Hel"), {"error": {"message": "lost the worker", "code": 500}})

    with pytest.raises(RemoteUnavailable, match="lost the worker"):
        ask(_model(handler))
    assert len(calls) == 1


@every_stream
def test_an_error_before_the_first_piece_is_tried_again(no_waiting: None, ask: Ask) -> None:
    assert ask(_model(Failing(_events({"error": "warming up"})))).text == "Hello there"


@every_stream
def test_a_stream_that_breaks_off_is_an_error(ask: Ask) -> None:
    with pytest.raises(RemoteUnavailable, match="before the answer was finished"):
        ask(_model(lambda request: _events(_delta(content="Hel"), done=False)))


@every_stream
def test_a_stream_may_end_without_done(ask: Ask) -> None:
    assert ask(_model(lambda request: _events(_delta("length", content="Hel"), done=False))).finish_reason == "length"


@every_stream
def test_an_answer_that_was_not_streamed_after_all_is_taken(ask: Ask) -> None:
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    assert ask(_model(lambda request: httpx.Response(200, json=body))).text == "whole"


CALLS = (
    {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}},
    {"id": "b", "type": "function", "function": {"name": "find", "arguments": "{}"}},
)


@every_stream
def test_streamed_tool_calls_are_put_together_by_index(ask: Ask) -> None:
    def part(index: int, **call: Any) -> dict[str, Any]:
        return _delta(tool_calls=[{"index": index, **call}])

    response = [
        part(1, id="b", function={"name": "find", "arguments": ""}),
        part(0, id="a", type="function", function={"name": "look", "arguments": '{"x"'}),
        part(0, function={"arguments": ": 1}"}),
        part(1, function={"arguments": "{}"}),
        _delta("tool_calls"),
    ]
    reply = ask(_model(lambda request: _events(*response)))
    assert reply.tool_calls == CALLS
    assert (reply.finish_reason, reply.text) == ("tool_calls", "")


@pytest.mark.parametrize("ask", [_generate, _agenerate])
def test_tool_calls_are_parsed(ask: Ask) -> None:
    body = {"choices": [{"message": {"content": None, "tool_calls": list(CALLS)}, "finish_reason": "stop"}]}
    reply = ask(_model(lambda request: httpx.Response(200, json=body)))
    assert (reply.tool_calls, reply.finish_reason) == (CALLS, "tool_calls")


class Connected(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An endless answer that knows whether its connection was closed."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.sent += 1
            yield f"data: {json.dumps(_delta(content='word '))}\n\n".encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True

    def response(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=self)


def test_a_dropped_stream_closes_the_connection() -> None:
    connected = Connected()
    stream = _model(connected.response).stream("Hi")
    assert [next(stream), next(stream)] == ["word ", "word "]
    assert not connected.closed
    del stream
    assert connected.closed
    assert connected.sent <= 3


def test_a_cancelled_or_closed_async_stream_closes_the_connection() -> None:
    async def cancel(connected: Connected) -> None:
        async def read() -> None:
            async for _ in _model(connected.response).astream("Hi"):
                await asyncio.sleep(0)

        task = asyncio.create_task(read())
        while not connected.sent:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def close(connected: Connected) -> None:
        stream = _model(connected.response).astream("Hi")
        assert await anext(aiter(stream)) == "word "
        await stream.aclose()
        assert stream.reply.finish_reason == "cancelled"

    for end in (cancel, close):
        connected = Connected()
        asyncio.run(end(connected))
        assert connected.closed


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(line_end: str, size: int) -> None:
    text = ": a comment\n\nevent: message\ndata: one é\n\ndata:two\ndata: lines\nid: 3\n\n\ndata: last"
    content = text.replace("\n", line_end).encode()
    parser = EventParser()
    events = [event for start in range(0, len(content), size) for event in parser.feed(content[start : start + size])]
    assert [*events, *parser.flush()] == ["one é", "two\nlines", "last"]


def test_the_models_of_a_server_are_listed(base_url: str) -> None:
    model = RemoteModel(base_url, "echo", window_tokens=100)
    assert model.list_models() == ["echo", "other"] == asyncio.run(model.alist_models())


def test_a_server_that_is_not_there_is_unavailable() -> None:
    model = RemoteModel("http://127.0.0.1:1/v1", "m", window_tokens=10, max_retries=0, timeout_seconds=5)
    with pytest.raises(RemoteUnavailable, match="Is the server running"):
        model.list_models()


def test_the_key_is_never_shown() -> None:
    model = _model(_answer)
    assert KEY not in repr(model) + repr(model.connection)


@pytest.mark.parametrize("wrong", [{"window_tokens": 0}, {"timeout_seconds": 0}, {"max_retries": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RemoteModel("http://model.test", "m", **{"window_tokens": 10, **wrong})
    with pytest.raises(ValueError, match="http://"):
        RemoteModel("model.test", "m", window_tokens=10)


def test_pieces_that_came_together_can_be_one_and_an_error_keeps_those_before_it() -> None:
    reader = StreamReader(ChatAnswer(), "text/event-stream", join_pieces=True)
    event = 'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n'
    assert list(reader.feed((event % "one " + event % "two " + event[:9]).encode())) == ["one two "]
    assert list(reader.feed(b"")) == []
    rest = reader.feed((event[9:] % "three" + 'data: {"error": {"message": "out of memory"}}\n\n').encode())
    assert next(rest) == "three"
    with pytest.raises(RemoteError, match="out of memory"):
        next(rest)
