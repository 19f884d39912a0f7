"""agent-framework-core: `TokenBudgetComposedStrategy` over tool-result compaction, then truncation to the budget.

`composed` is that; `keep-task` also asks the truncation to preserve the first user message, which suits agent loops.
"""

from __future__ import annotations

import asyncio
from typing import Any

import harness
import rule
from agent_framework import (
    Content,
    Message,
    TokenBudgetComposedStrategy,
    ToolResultCompactionStrategy,
    TruncationStrategy,
    apply_compaction,
)


class O200k:
    def count_tokens(self, text: str) -> int:
        return rule.tokens(text)


def composed(*, preserve_first_user_group: bool) -> harness.Method:
    def method(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
        given = [to_framework(message) for message in messages]
        tokenizer = O200k()
        truncation = TruncationStrategy(
            max_n=budget,
            compact_to=budget,
            tokenizer=tokenizer,
            preserve_first_user_group=preserve_first_user_group,
        )
        strategy = TokenBudgetComposedStrategy(
            token_budget=budget, tokenizer=tokenizer, strategies=[ToolResultCompactionStrategy(), truncation]
        )

        loop = asyncio.new_event_loop()

        def call() -> list[Message]:
            return loop.run_until_complete(apply_compaction(given, strategy=strategy, tokenizer=tokenizer))

        return call, lambda made: [from_framework(message) for message in made]

    return method


def to_framework(message: harness.Message) -> Message:
    if message["role"] == "tool":
        return Message("tool", [Content.from_function_result(message["tool_call_id"], result=message["content"])])
    contents: list[Any] = [message["content"]] if message["content"] else []
    contents += [
        Content.from_function_call(call["id"], call["function"]["name"], arguments=call["function"]["arguments"])
        for call in message.get("tool_calls", ())
    ]
    return Message(message["role"], contents)


def from_framework(message: Message) -> harness.Message:
    result = next((one for one in message.contents if one.type == "function_result"), None)
    if result is not None:
        return {"role": "tool", "content": str(result.result), "tool_call_id": result.call_id}
    made: harness.Message = {"role": str(message.role), "content": message.text}
    calls = [one for one in message.contents if one.type == "function_call"]
    if calls:
        made["tool_calls"] = [from_call(call) for call in calls]
    return made


def from_call(call: Any) -> dict[str, Any]:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


if __name__ == "__main__":
    harness.main(
        {
            "composed": composed(preserve_first_user_group=False),
            "keep-task": composed(preserve_first_user_group=True),
        }
    )
