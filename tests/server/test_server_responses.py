"""The responses API as OpenAI's own client sees it."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import openai
import pytest

from ctxkit.errors import RemoteUnavailable
from ctxkit.server import Service
from ctxkit.testing import ScriptedModel
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}


def scripted(*lines: object) -> tuple[ScriptedModel, Service]:
    model = ScriptedModel(list(lines), window_tokens=200)  # type: ignore[arg-type]
    return model, Service({"m": model})


def test_a_text_is_answered(serve: Start) -> None:
    model, service = scripted("Hello there.")
    answer = serve(service).client().responses.create(model="m", input="Hi", instructions="Be kind.")
    assert answer.output_text == "Hello there." and answer.status == "completed"
    assert answer.usage and answer.usage.output_tokens == 2 and answer.usage.input_tokens > 0
    assert [message.role for message in model.prompts[0].messages] == ["system", "user"]


def test_a_stream_grows_to_the_same_answer(serve: Start) -> None:
    _, service = scripted("Hello there friend.")
    with serve(service).client().responses.stream(model="m", input="Hi") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "Hello there friend."
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == "Hello there friend."
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert [one.sequence_number for one in events] == sorted(one.sequence_number for one in events)


def test_tools_are_called_and_their_results_come_back_as_items(serve: Start) -> None:
    model, service = scripted([CALL], "Blue.", [CALL])
    client = serve(service).client()
    first = client.responses.create(model="m", input="What colour?", tools=[TOOL])
    call = first.output[-1]
    assert call.type == "function_call" and call.name == "look" and call.arguments == '{"at": "sky"}'
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "blue"}
    items = [{"role": "user", "content": "What colour?"}, call.model_dump(exclude_none=True), output]
    assert client.responses.create(model="m", input=items, tools=[TOOL]).output_text == "Blue."
    assert [message.role for message in model.prompts[1].messages] == ["user", "assistant", "tool"]
    with client.responses.stream(model="m", input="Again?", tools=[TOOL]) as stream:
        assert stream.get_final_response().output[-1].arguments == '{"at": "sky"}'


def test_calls_side_by_side_are_one_message(serve: Start) -> None:
    model, service = scripted("Done.")
    items: list[dict[str, object]] = [{"role": "user", "content": [{"type": "input_text", "text": "Both?"}]}]
    items += [{"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"} for name in "ab"]
    items += [{"type": "function_call_output", "call_id": name, "output": "x"} for name in "ab"]
    serve(service).client().responses.create(model="m", input=items, tools=[TOOL])
    assert [message.role for message in model.prompts[0].messages] == ["user", "assistant", "tool", "tool"]


def test_what_was_said_before_a_call_is_one_message_with_it(serve: Start) -> None:
    model, service = scripted("Done.")
    items: list[dict[str, object]] = [{"role": "user", "content": "Look."}, {"role": "assistant", "content": "I look."}]
    items += [{"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}]
    items += [{"type": "function_call_output", "call_id": "a", "output": "x"}]
    serve(service).client().responses.create(model="m", input=items, tools=[TOOL])
    _, said, _ = model.prompts[0].messages
    assert said.content == "I look." and len(said.tool_calls) == 1


def test_an_answer_that_was_cut_is_incomplete(serve: Start) -> None:
    _, service = scripted("one two three four", "one two three four")
    client = serve(service).client()
    answer = client.responses.create(model="m", input="Hi", max_output_tokens=2)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    kinds = [one.type for one in client.responses.create(model="m", input="Hi", max_output_tokens=2, stream=True)]
    assert kinds[-1] == "response.incomplete"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": [{"type": "computer_call"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": 5}]}, "input.0"),
    ],
)
def test_what_is_not_done_here_is_refused_by_its_field(serve: Start, body: dict[str, object], param: str) -> None:
    answer = httpx.post(f"{serve(scripted('x')[1]).root}/v1/responses", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_errors_have_their_status_and_in_a_stream_their_event(serve: Start) -> None:
    class Breaking(ScriptedModel):
        def _answer(self, prompt, sampling):  # type: ignore[no-untyped-def]
            answer = super()._answer(prompt, sampling)

            def pieces(stopped):  # type: ignore[no-untyped-def]
                yield "one "
                raise RemoteUnavailable("the engine died")

            answer.pieces = pieces
            return answer

    client = serve(Service({"m": Breaking(["one two", "one two"])})).client()
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="m", input="Hi")
    with pytest.raises(openai.APIError, match="the engine died"):
        list(client.responses.create(model="m", input="Hi", stream=True))
