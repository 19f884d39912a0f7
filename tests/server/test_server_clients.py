"""OpenAI's own client at its full length: async, parsed answers, helpers, error classes, retries."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import openai
import pytest
from pydantic import BaseModel

from ctxkit.errors import MissingExtra, ModelError
from ctxkit.models.requests import Request
from ctxkit.server import ServeOptions, Service
from ctxkit.testing import ScriptedModel, tiny_model
from ctxkit.testing.scripted import Line
from tests.server.letters import Letters
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
T = TypeVar("T")

HI: Any = [{"role": "user", "content": "Say hi"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "Look", "arguments": '{"at": "sky"}'}}


class Weather(BaseModel):
    """The weather at a place."""

    place: str
    degrees: float


class Look(BaseModel):
    """Looks at something."""

    at: str


ROME = Weather(place="Rome", degrees=21.5)


def scripted(*lines: Line, **options: Any) -> Service:
    return Service({"m": ScriptedModel(lines)}, encoder=Letters(), options=ServeOptions(**options))


def echo(request: Request) -> str:
    return f"You said {request.messages[-1].content}"


def asked(server: RunningServer, act: Callable[[openai.AsyncOpenAI], Awaitable[T]], key: str = "none") -> T:
    """What `act` makes of an asynchronous client."""

    async def whole() -> T:
        async with openai.AsyncOpenAI(base_url=f"{server.root}/v1", api_key=key, max_retries=0) as client:
            return await act(client)

    return asyncio.run(whole())


# --- many at once -----------------------------------------------------------------------------------------------------


def test_answers_that_are_given_at_the_same_time_do_not_mix(serve: Start) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        said: Any = [{"role": "user", "content": f"number {number}"}]
        if number % 3 == 0:
            whole = await client.chat.completions.create(model="m", messages=said)
            return whole.choices[0].message.content or ""
        if number % 3 == 1:
            return (await client.responses.create(model="m", input=said)).output_text
        stream = await client.chat.completions.create(model="m", messages=said, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_of_them(client: openai.AsyncOpenAI) -> list[str]:
        return list(await asyncio.gather(*(one(client, number) for number in range(30))))

    service = Service({"m": ScriptedModel(echo)}, options=ServeOptions(max_running=4))
    assert asked(serve(service), all_of_them) == [f"You said number {number}" for number in range(30)]


def test_a_stream_that_is_left_in_the_middle_leaves_the_client_usable(serve: Start) -> None:
    async def left(client: openai.AsyncOpenAI) -> str | None:
        async with await client.chat.completions.create(model="m", messages=HI, stream=True) as stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
        again = await client.chat.completions.create(model="m", messages=HI)
        return again.choices[0].message.content

    assert asked(serve(Service({"m": ScriptedModel(echo)})), left) == "You said Say hi"


def test_embeddings_come_to_the_asynchronous_client_too(serve: Start) -> None:
    async def embedded(client: openai.AsyncOpenAI) -> list[int]:
        found = await client.embeddings.create(model="letters", input=["abc", "zzz"])
        return [len(one.embedding) for one in found.data]

    assert asked(serve(scripted()), embedded) == [26, 26]


# --- parsed answers ---------------------------------------------------------------------------------------------------


def test_a_form_is_filled_and_parsed(serve: Start) -> None:
    client = serve(scripted(ROME.model_dump_json(), ROME.model_dump_json())).client()
    chat = client.chat.completions.parse(model="m", messages=HI, response_format=Weather)
    assert chat.choices[0].message.parsed == ROME
    assert client.responses.parse(model="m", input="Rome?", text_format=Weather).output_parsed == ROME


def test_the_schema_reaches_the_model(serve: Start) -> None:
    forms: list[Any] = []

    class Noting(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            forms.append(sampling.response_format)
            return super()._answer(prompt, sampling)

    client = serve(Service({"m": Noting(lambda request: ROME.model_dump_json())})).client()
    client.chat.completions.parse(model="m", messages=HI, response_format=Weather)
    client.responses.parse(model="m", input="Rome?", text_format=Weather)
    client.chat.completions.create(model="m", messages=HI)
    chat, responses, none = forms
    assert chat["json_schema"]["schema"]["required"] == ["place", "degrees"] and none is None
    assert {**chat["json_schema"], "name": ""} == {**responses["json_schema"], "name": ""}


def test_a_form_that_was_cut_is_no_form(serve: Start) -> None:
    long = json.dumps({"place": "a b c d e f", "degrees": 1})
    client = serve(scripted(long, long)).client()
    with pytest.raises(openai.LengthFinishReasonError) as cut:
        client.chat.completions.parse(model="m", messages=HI, response_format=Weather, max_tokens=3)
    assert cut.value.completion.usage and cut.value.completion.usage.completion_tokens == 3
    with (
        pytest.raises(openai.LengthFinishReasonError),
        client.chat.completions.stream(model="m", messages=HI, response_format=Weather, max_tokens=3) as stream,
    ):
        stream.get_final_completion()


def test_the_chat_helper_streams_text_form_and_usage(serve: Start) -> None:
    client = serve(scripted(ROME.model_dump_json(indent=1))).client()
    options: Any = {"include_usage": True}
    with client.chat.completions.stream(
        model="m", messages=HI, response_format=Weather, stream_options=options
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == ROME and final.usage and final.usage.completion_tokens > 0
    assert kinds.count("content.delta") > 3 and kinds.count("content.done") == 1


def test_the_responses_helper_streams_a_form(serve: Start) -> None:
    async def streamed(client: openai.AsyncOpenAI) -> tuple[Any, list[str]]:
        async with client.responses.stream(model="m", input="Rome?", text_format=Weather) as stream:
            kinds = [event.type async for event in stream]
            return (await stream.get_final_response()).output_parsed, kinds

    parsed, kinds = asked(serve(scripted(ROME.model_dump_json(indent=1))), streamed)
    assert parsed == ROME and kinds.count("response.output_text.delta") > 3
    assert [kind for kind in kinds if not kind.endswith("delta")] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_tool_goes_there_and_back(serve: Start) -> None:
    service = scripted([CALL], "It is blue.", [CALL])
    model: Any = service.models["m"]
    client = serve(service).client()
    tools: Any = [openai.pydantic_function_tool(Look)]
    first = client.chat.completions.parse(model="m", messages=HI, tools=tools).choices[0].message
    assert first.tool_calls and first.tool_calls[0].function.parsed_arguments == Look(at="sky")
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "blue"}
    history: Any = [*HI, first.to_dict(), result]
    assert client.chat.completions.create(model="m", messages=history, tools=tools).choices[0].message.content
    assert [message.role for message in model.prompts[1].messages] == ["user", "assistant", "tool"]
    with client.chat.completions.stream(model="m", messages=HI, tools=tools) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert done[0].parsed_arguments == Look(at="sky")


def test_log_probabilities_are_those_of_the_tokens(serve: Start) -> None:
    client = serve(Service({"tiny": tiny_model()})).client()
    whole = client.chat.completions.create(model="tiny", messages=HI, max_tokens=4, logprobs=True, top_logprobs=2)
    told = whole.choices[0].logprobs
    assert told and told.content and whole.usage and len(told.content) == whole.usage.completion_tokens
    assert all(one.logprob <= 0 and len(one.top_logprobs) == 2 for one in told.content)
    pieces = client.chat.completions.create(
        model="tiny", messages=HI, max_tokens=4, logprobs=True, top_logprobs=2, stream=True
    )
    choices = [choice for chunk in pieces for choice in chunk.choices]
    streamed = [one for choice in choices if choice.logprobs for one in choice.logprobs.content or ()]
    assert [one.token for one in streamed] == [one.token for one in told.content]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "fields", "code", "param"),
    [
        (openai.BadRequestError, "alpha", {"temperature": 9}, "invalid_value", "temperature"),
        (openai.BadRequestError, "alpha", {"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
        (openai.AuthenticationError, "gamma", {}, "invalid_api_key", None),
        (openai.NotFoundError, "alpha", {"model": "other"}, "model_not_found", "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_error_is_of_its_class_and_names_its_request(
    serve: Start, kind: type[openai.APIStatusError], key: str, fields: Any, code: str, param: str | None, stream: bool
) -> None:
    async def refused(client: openai.AsyncOpenAI) -> openai.APIStatusError:
        with pytest.raises(kind) as refusal:
            await client.chat.completions.create(**{"model": "m", "messages": HI, "stream": stream, **fields})
        return refusal.value

    error = asked(serve(scripted(api_keys=("alpha",))), refused, key)
    assert (error.code, error.param) == (code, param) and error.request_id and error.request_id.startswith("req_")


class Busy:
    """A server whose only place is taken until `free` is set."""

    def __init__(self, serve: Start) -> None:
        self.free, self.taken = threading.Event(), threading.Event()
        self.model = ScriptedModel(self._answer)
        options = ServeOptions(max_running=1, max_waiting=0)
        self.server = serve(Service({"m": self.model}, options=options))
        self.first = threading.Thread(target=self._ask)
        self.first.start()
        assert self.taken.wait(30)

    def _answer(self, request: Request) -> str:
        self.taken.set()
        self.free.wait(30)
        return "done"

    def _ask(self) -> None:
        self.server.client().chat.completions.create(model="m", messages=HI)

    def leave(self) -> None:
        """The first request is answered, and its place is free."""
        self.free.set()
        self.first.join()


def test_a_full_server_says_when_to_come_back(serve: Start) -> None:
    busy = Busy(serve)
    try:
        with pytest.raises(openai.RateLimitError) as refusal:
            busy.server.client().chat.completions.create(model="m", messages=HI, stream=True)
    finally:
        busy.leave()
    assert refusal.value.code == "rate_limit_exceeded" and refusal.value.type == "rate_limit_error"
    assert refusal.value.response.headers["x-should-retry"] == "true"
    assert int(refusal.value.response.headers["retry-after"]) >= 1


def test_a_client_that_comes_back_when_it_was_told_to_gets_through(serve: Start) -> None:
    busy, statuses = Busy(serve), list[int]()

    def answered(response: Any) -> None:
        statuses.append(response.status_code)
        busy.leave()

    with openai.DefaultHttpxClient(event_hooks={"response": [answered]}) as http:
        client = busy.server.client(max_retries=2, http_client=http)
        assert client.chat.completions.create(model="m", messages=HI).choices[0].message.content == "done"
    assert statuses == [429, 200] and len(busy.model.prompts) == 2


@pytest.mark.parametrize(
    ("error", "status"), [(ModelError("broken"), 500), (MissingExtra("xgrammar", "structured"), 501)]
)
def test_a_model_that_cannot_do_it_is_asked_once(serve: Start, error: Exception, status: int) -> None:
    model = ScriptedModel(lambda request: error)
    with pytest.raises(openai.InternalServerError) as refusal:
        serve(Service({"m": model})).client(max_retries=3).chat.completions.create(model="m", messages=HI)
    assert refusal.value.status_code == status and len(model.prompts) == 1


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (lambda client: client.chat.completions.create(model="m", messages=HI), 500),
        (lambda client: client.chat.completions.create(model="m", messages=HI, stream=True), 500),
        (lambda client: client.responses.create(model="m", input="x"), 500),
        (lambda client: client.responses.retrieve("resp_1"), 501),
        (lambda client: client.embeddings.create(model="e", input="x"), 501),
    ],
)
def test_a_client_does_not_come_back_where_that_cannot_help(
    serve: Start, act: Callable[[openai.OpenAI], object], status: int
) -> None:
    statuses = list[int]()
    server = serve(Service({"m": ScriptedModel(lambda request: ModelError("broken"))}))
    hooks: Any = {"response": [lambda response: statuses.append(response.status_code)]}
    with openai.DefaultHttpxClient(event_hooks=hooks) as http, pytest.raises(openai.InternalServerError):
        act(server.client(max_retries=3, http_client=http))
    assert statuses == [status]
