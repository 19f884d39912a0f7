"""haystack-ai: `SlidingWindowCompactor` with `TiktokenCounter` (o200k), given the budget as its target.

Through `CompactionHook` a share of the window would stay free; the compactor itself is asked to fill it. Its defaults
keep the newest step whatever its size and put a note where messages were removed.
"""

from __future__ import annotations

import json
from typing import Any

import harness
from haystack.dataclasses import ChatMessage
from haystack.hooks.compaction import SlidingWindowCompactor
from haystack.token_counters import TiktokenCounter

COUNTER = TiktokenCounter(encoding="o200k_base")


def sliding_window(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
    given = to_haystack(messages)
    compactor = SlidingWindowCompactor()

    def call() -> list[ChatMessage]:
        kept = compactor.compact(messages=given, target_tokens=budget, token_counter=COUNTER)
        return given if kept is None else kept

    return call, lambda made: [from_haystack(message) for message in made]


def to_haystack(messages: list[harness.Message]) -> list[ChatMessage]:
    """Each tool result is tied to the call it answers, as Haystack's own agent does."""
    made: list[ChatMessage] = []
    calls: dict[str, Any] = {}
    for message in messages:
        if message["role"] == "tool":
            origin = calls[message["tool_call_id"]]
            made.append(ChatMessage.from_tool(tool_result=message["content"], origin=origin))
            continue
        made.append(ChatMessage.from_openai_dict_format(message))
        calls.update({call.id: call for call in made[-1].tool_calls})
    return made


def from_haystack(message: ChatMessage) -> harness.Message:
    result = message.tool_call_result
    if result is not None:
        return {"role": "tool", "content": result.result, "tool_call_id": result.origin.id}
    made: harness.Message = {"role": message.role.value, "content": message.text or ""}
    if message.tool_calls:
        made["tool_calls"] = [from_call(call) for call in message.tool_calls]
    return made


def from_call(call: Any) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.tool_name, "arguments": arguments}}


if __name__ == "__main__":
    harness.main({"window": sliding_window})
