"""Chat as OpenAI's own client sees it."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import openai
import pytest

from ctxkit.errors import ModelError, RemoteUnavailable
from ctxkit.server import ServeOptions, Service
from ctxkit.testing import ScriptedModel
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
HI = [{"role": "user", "content": "Say hi"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def scripted(*lines: object, **settings: object) -> Service:
    return Service({"org/scripted": ScriptedModel(list(lines) or ["Hello there."], **settings)})  # type: ignore[arg-type]


def test_an_answer_has_everything_the_client_reads(serve: Start) -> None:
    client = serve(scripted("Hello there.")).client()
    raw = client.chat.completions.with_raw_response.create(model="org/scripted", messages=HI)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello there." and answer.choices[0].finish_reason == "stop"
    assert answer.usage and answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens == 2
    assert raw.headers["x-request-id"].startswith("req_")
    assert answer.model_extra and answer.model_extra["x_ctxkit"]["prompt_tokens"] == answer.usage.prompt_tokens


def test_a_stream_begins_with_the_role_and_ends_with_done(serve: Start) -> None:
    server = serve(scripted("Hello there friend."))
    body = {"model": "org/scripted", "messages": HI, "stream": True, "stream_options": {"include_usage": True}}
    lines = [line for line in httpx.post(f"{server.root}/v1/chat/completions", json=body).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    deltas = [one["choices"][0]["delta"] for one in chunks if one["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello there friend."
    assert [one["usage"]["completion_tokens"] for one in chunks if "usage" in one] == [3]


def test_the_client_streams(serve: Start) -> None:
    client = serve(scripted("Hello there friend.")).client()
    with client.chat.completions.create(model="org/scripted", messages=HI, stream=True) as stream:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert said == "Hello there friend."


def test_tool_calls_come_whole_and_in_pieces(serve: Start) -> None:
    client = serve(scripted([CALL], [CALL])).client()
    whole = client.chat.completions.create(model="org/scripted", messages=HI, tools=[TOOL])
    assert whole.choices[0].finish_reason == "tool_calls" and whole.choices[0].message.content is None
    assert whole.choices[0].message.tool_calls[0].function.arguments == '{"at": "sky"}'
    with client.chat.completions.stream(model="org/scripted", messages=HI, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "look"


def test_several_answers_come_with_their_index(serve: Start) -> None:
    client = serve(scripted("one", "two", "three", "four")).client()
    whole = client.chat.completions.create(model="org/scripted", messages=HI, n=2)
    assert {choice.message.content for choice in whole.choices} == {"one", "two"}
    said: dict[int, str] = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="org/scripted", messages=HI, n=2, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert set(said.values()) == {"three", "four"}


def test_a_long_conversation_is_fitted_and_the_report_says_what_was_left_out(serve: Start) -> None:
    server = serve(scripted("ok", window_tokens=120))
    client = server.client()
    history = [{"role": role, "content": f"{n} " * 20} for n in range(10) for role in ("user", "assistant")]
    answer = client.chat.completions.create(model="org/scripted", messages=[*history, *HI], max_tokens=20)
    told = answer.model_extra["x_ctxkit"]  # type: ignore[index]
    assert told["prompt_tokens"] == answer.usage.prompt_tokens <= 100 < told["original_tokens"]
    assert told["dropped"] or told["reduced"]
    assert sum(told["by_kind"].values()) == told["prompt_tokens"]
    left_out = told["original_tokens"] - told["prompt_tokens"]
    assert f"ctxkit_tokens_left_out_total {left_out}.0" in httpx.get(f"{server.root}/metrics").text


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": HI, "temperature": 9}, 400, "invalid_value", "temperature"),
        ({"messages": HI, "model": "other"}, 404, "model_not_found", "model"),
        ({"messages": HI, "logit_bias": {"5": 1}}, 400, "unsupported_parameter", "logit_bias"),
        ({"messages": HI, "top_logprobs": 3}, 400, "unsupported_parameter", "top_logprobs"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_prompt", "messages"),
        ({"messages": HI, "ctxkit": {"overflow": "burst"}}, 400, "invalid_value", "ctxkit.overflow"),
        ({"messages": [{"role": "user", "content": "x " * 500}]}, 400, "context_length_exceeded", "messages"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_an_error_with_its_field(
    serve: Start, body: dict[str, object], status: int, code: str, param: str, stream: bool
) -> None:
    server = serve(scripted("ok", window_tokens=200))
    answer = httpx.post(f"{server.root}/v1/chat/completions", json={**body, "stream": stream})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["message"] and error["type"]
    if code == "context_length_exceeded":
        assert error["minimum_feasible"] > 200


def test_refusing_says_what_the_whole_conversation_needs(serve: Start) -> None:
    client = serve(scripted("ok", window_tokens=100)).client()
    long = [{"role": role, "content": "word " * 40} for role in ("user", "assistant")] * 3
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(
            model="org/scripted", messages=[*long, *HI], max_tokens=20, extra_body={"ctxkit": {"overflow": "refuse"}}
        )
    assert refusal.value.code == "context_length_exceeded"
    assert refusal.value.body["minimum_feasible"] > 240  # type: ignore[index]


def test_unknown_fields_are_named_and_not_refused(serve: Start) -> None:
    client = serve(scripted("ok")).client()
    answer = client.chat.completions.create(model="org/scripted", messages=HI, user="me", extra_body={"magic": 1})
    assert answer.model_extra["x_ctxkit"]["ignored_fields"] == ["magic"]  # type: ignore[index]


def test_errors_in_the_middle_of_a_stream_are_events(serve: Start) -> None:
    class Breaking(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            answer = super()._answer(prompt, sampling)

            def pieces(stopped):  # type: ignore[no-untyped-def]
                yield "one "
                raise RemoteUnavailable("the engine died")

            answer.pieces = pieces
            return answer

    client = serve(Service({"m": Breaking(["one two"])})).client()
    with pytest.raises(openai.APIError, match="the engine died"):
        list(client.chat.completions.create(model="m", messages=HI, stream=True))


def test_the_engines_errors_have_their_status(serve: Start) -> None:
    client = serve(scripted(ModelError("broken"), RemoteUnavailable("down"))).client()
    with pytest.raises(openai.InternalServerError) as broken:
        client.chat.completions.create(model="org/scripted", messages=HI)
    assert broken.value.status_code == 500
    with pytest.raises(openai.InternalServerError) as down:
        client.chat.completions.create(model="org/scripted", messages=HI)
    assert down.value.status_code == 502 and down.value.response.headers["retry-after"]


def test_keys_are_asked_for_and_told_apart(serve: Start) -> None:
    options = ServeOptions(api_keys=("alpha", "beta"))
    server = serve(Service({"m": ScriptedModel(["ok"] * 4)}, options=options))
    for key in ("alpha", "beta"):
        assert server.client(key).chat.completions.create(model="m", messages=HI).choices
    for key in ("gamma", "alph"):
        with pytest.raises(openai.AuthenticationError):
            server.client(key).models.list()
    assert httpx.get(f"{server.root}/health").json()["status"] == "ok"


def test_models_are_listed_and_found_by_name(serve: Start) -> None:
    client = serve(scripted()).client()
    assert [one.id for one in client.models.list()] == ["org/scripted"]
    assert client.models.retrieve("org/scripted").id == "org/scripted"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/other")


def test_metrics_count_tokens_and_requests(serve: Start) -> None:
    server = serve(scripted("Hello there."))
    server.client().chat.completions.create(model="org/scripted", messages=HI)
    text = httpx.get(f"{server.root}/metrics").text
    assert 'ctxkit_tokens_total{kind="completion"} 2.0' in text
    assert 'ctxkit_requests_total{route="/v1/chat/completions",status="200"} 1.0' in text


def test_paths_that_are_not_there_and_bodies_too_large_are_errors_too(serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel(["ok"])}, options=ServeOptions(max_body_bytes=1000)))
    assert httpx.get(f"{server.root}/v1/nothing").json()["error"]["code"] == "not_found"
    assert httpx.get(f"{server.root}/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
    large = httpx.post(
        f"{server.root}/v1/chat/completions", json={"messages": [{"role": "user", "content": "x" * 2000}]}
    )
    assert large.status_code == 413 and large.json()["error"]["code"] == "body_too_large"
    broken = httpx.post(
        f"{server.root}/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}
    )
    assert broken.status_code == 400
