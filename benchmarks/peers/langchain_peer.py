"""langchain-core: `trim_messages`, with the options that its documentation recommends, and with its defaults.

`exact` passes a counter by the judge's own rule; `approximate` is what the documentation advises "on the hot path".
"""

from __future__ import annotations

import json
from typing import Any

import harness
import rule
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages

RECOMMENDED = {"start_on": "human", "end_on": ("human", "tool")}


def trimming(counter: Any, **options: Any) -> harness.Method:
    def method(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
        given = [to_langchain(message) for message in messages]

        def call() -> list[BaseMessage]:
            return trim_messages(
                given, max_tokens=budget, token_counter=counter, strategy="last", include_system=True, **options
            )

        return call, lambda made: [from_langchain(message) for message in made]

    return method


def exact(messages: list[BaseMessage]) -> int:
    """By the judge's rule, straight from LangChain's messages."""
    total = rule.PER_PROMPT
    for message in messages:
        total += rule.PER_MESSAGE + rule.tokens(str(message.content))
        for call in getattr(message, "tool_calls", ()):
            total += rule.tokens(call["name"]) + rule.tokens(json.dumps(call["args"], ensure_ascii=False))
    return total


def to_langchain(message: harness.Message) -> BaseMessage:
    content = message["content"]
    if message["role"] == "system":
        return SystemMessage(content)
    if message["role"] == "user":
        return HumanMessage(content)
    if message["role"] == "tool":
        return ToolMessage(content, tool_call_id=message["tool_call_id"])
    calls = [
        {"id": call["id"], "name": call["function"]["name"], "args": json.loads(call["function"]["arguments"])}
        for call in message.get("tool_calls", ())
    ]
    return AIMessage(content, tool_calls=calls)


def from_langchain(message: BaseMessage) -> harness.Message:
    if isinstance(message, ToolMessage):
        return {"role": "tool", "content": message.content, "tool_call_id": message.tool_call_id}
    role = {"system": "system", "human": "user", "ai": "assistant"}[message.type]
    made: harness.Message = {"role": role, "content": message.content}
    if isinstance(message, AIMessage) and message.tool_calls:
        made["tool_calls"] = [from_call(call) for call in message.tool_calls]
    return made


def from_call(call: Any) -> dict[str, Any]:
    arguments = json.dumps(call["args"], ensure_ascii=False)
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": arguments}}


if __name__ == "__main__":
    harness.main(
        {
            "default": trimming(exact),
            "recommended": trimming(exact, **RECOMMENDED),
            "approximate": trimming("approximate", **RECOMMENDED),
        }
    )
