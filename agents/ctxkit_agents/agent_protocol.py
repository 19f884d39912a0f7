"""How an agent and a model talk about tools: by the model's own tool calls, or by JSON in its text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from ctxkit.context import Plan
from ctxkit.models.requests import Promptable, Request
from ctxkit.protocols import TOOLS, Counter, PromptMessage, Rendering, Reply, Segment
from ctxkit.protocols import Tool as ToolSchema
from ctxkit.tokens.wrapped import WrappedCounter
from ctxkit_agents.runtime.reading import json_objects
from ctxkit_agents.tool_use import Call, calls_of

ProtocolName = Literal["tools", "json"]

_HOW = """Answer with one JSON object and nothing else. To use a tool:
{"tool": "<its name>", "arguments": {...}}
To use several at once, write a list of such objects. When you know the answer:
{"answer": "<your answer>"}
"""
_REMINDER_CHARS = 200


@dataclass(frozen=True, slots=True)
class Said:
    """What a reply says. problem: what is wrong with it, where it is neither an answer nor a call."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    problem: str = ""


class AgentProtocol(Protocol):
    """How tools are shown to a model and how its answers are read."""

    def counter(self, counter: Counter) -> Counter:
        """What counts the prompts as they will be sent."""
        ...

    def prompt(self, plan: Plan) -> Promptable: ...

    def read(self, reply: Reply, step: int) -> Said: ...


class ToolCalls:
    """The model's own tool calls, through its chat template or its server."""

    def counter(self, counter: Counter) -> Counter:
        return counter

    def prompt(self, plan: Plan) -> Promptable:
        return plan

    def read(self, reply: Reply, step: int) -> Said:
        if reply.tool_calls:
            return Said(reply.text, calls_of(reply, step))
        return Said(reply.text, problem="" if reply.text.strip() else "Your answer was empty.")


class JsonAnswers:
    """JSON in the model's text: tools stand in the system message, calls and results are plain messages."""

    def counter(self, counter: Counter) -> Counter:
        return JsonCounter(counter)

    def prompt(self, plan: Plan) -> Promptable:
        return Request(in_plain_messages(plan.messages, plan.tools), ids=plan.ids)

    def read(self, reply: Reply, step: int) -> Said:
        calls: list[Call] = []
        for value in json_objects(reply.text):
            if isinstance(value.get("tool"), str):
                arguments = json.dumps(value.get("arguments", {}), ensure_ascii=False)
                calls.append(Call(f"call-{step}-{len(calls)}", value["tool"], arguments))
            elif "answer" in value and not calls:
                answer = value["answer"]
                text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
                return Said(text) if text.strip() else Said(problem="Your answer was empty.")
        if calls:
            return Said(calls=tuple(calls))
        return Said(problem='Your answer was not a JSON object with a "tool" or an "answer".')


def protocol(name: ProtocolName) -> AgentProtocol:
    return JsonAnswers() if name == "json" else ToolCalls()


def reminder(said: Said, reply: Reply) -> list[dict[str, Any]]:
    """The two messages that tell the model what was wrong with its answer."""
    wrong = reply.text.strip()
    shown = wrong if len(wrong) <= _REMINDER_CHARS else wrong[:_REMINDER_CHARS] + " [...]"
    return [
        {"role": "assistant", "content": shown or "(nothing)"},
        {"role": "user", "content": f"{said.problem} Use a tool, or give your answer."},
    ]


class JsonCounter(WrappedCounter):
    """Counts messages with tools as the plain messages that they are sent as."""

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[ToolSchema] = ()) -> Rendering:
        return self.inner.render(in_plain_messages(messages, tools))


def in_plain_messages(messages: Sequence[PromptMessage], tools: Sequence[ToolSchema]) -> tuple[PromptMessage, ...]:
    """The messages in the roles system, user and assistant alone; neighbours in the user's role are one message."""
    shown: list[PromptMessage] = []
    names: dict[str, str] = {}
    for message in _with_tools(messages, tools):
        for call in message.tool_calls:
            names[str(call.get("id"))] = str(call["function"]["name"])
        plain = _plain(message, names)
        if shown and plain.role == "user" == shown[-1].role:
            shown[-1] = _joined(shown[-1], plain)
        else:
            shown.append(plain)
    return tuple(shown)


def _with_tools(messages: Sequence[PromptMessage], tools: Sequence[ToolSchema]) -> Iterator[PromptMessage]:
    """The messages, what can be answered in the first of them, which is the system's."""
    lines = (json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    told = Segment(_HOW + "\n".join(["Tools:", *lines] if tools else ["There are no tools."]), TOOLS)
    if messages and messages[0].role == "system":
        first = messages[0]
        yield replace(first, segments=(*first.segments, Segment("\n\n"), told), original=None)
        messages = messages[1:]
    else:
        yield PromptMessage("system", (told,))
    yield from messages


def _plain(message: PromptMessage, names: Mapping[str, str]) -> PromptMessage:
    if message.role == "tool":
        heading = Segment(f"Result of {names.get(message.tool_call_id or '', 'a tool')}:\n", message.owner)
        return PromptMessage("user", (heading, *message.segments))
    if not message.tool_calls:
        return message
    calls = [{"tool": call["function"]["name"], "arguments": _value(call)} for call in message.tool_calls]
    written = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
    said = (*message.segments, Segment("\n")) if message.content else message.segments
    return PromptMessage("assistant", (*said, Segment(written, message.owner)), owner=message.owner)


def _value(call: Mapping[str, Any]) -> Any:
    arguments = call["function"].get("arguments", "{}")
    try:
        return json.loads(arguments)
    except (json.JSONDecodeError, TypeError, RecursionError):
        return arguments


def _joined(before: PromptMessage, after: PromptMessage) -> PromptMessage:
    return replace(before, segments=(*before.segments, Segment("\n\n"), *after.segments), original=None)
