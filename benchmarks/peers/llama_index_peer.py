"""llama-index-core: `ChatMemoryBuffer` and its successor `Memory`.

As its agents do, the system prompt is kept outside and put in front of what the memory returns; its tokens are taken
off the limit. Tool calls travel in `additional_kwargs`, where `Memory` counts them (a ToolCallBlock would count 0).
`Memory` has no memory blocks here, so all of the limit goes to the history (ratio 1.0, not the 0.7 that leaves room for
blocks), and it flushes a tenth of the limit at a time, its own default share.
"""

from __future__ import annotations

from typing import Any

import harness
import rule
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory


def chat_memory_buffer(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
    system, history, limit = split(messages, budget)
    memory = ChatMemoryBuffer.from_defaults(
        chat_history=history, token_limit=limit, tokenizer_fn=rule.ENCODING.encode_ordinary
    )
    return memory.get, lambda made: system + [from_llama(message) for message in made]


def memory(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
    system, history, limit = split(messages, budget)
    made = Memory.from_defaults(
        token_limit=limit,
        chat_history_token_ratio=1.0,
        token_flush_size=max(limit // 10, 1),
        tokenizer_fn=rule.ENCODING.encode_ordinary,
    )

    def call() -> list[ChatMessage]:
        made.put_messages(history)
        return made.get()

    return call, lambda kept: system + [from_llama(message) for message in kept]


def split(messages: list[harness.Message], budget: int) -> tuple[list[harness.Message], list[ChatMessage], int]:
    """System messages, the others as LlamaIndex's, and the tokens left for these."""
    system = [message for message in messages if message["role"] == "system"]
    history = [to_llama(message) for message in messages if message["role"] != "system"]
    return system, history, max(budget - rule.prompt_tokens(system), 1)


def to_llama(message: harness.Message) -> ChatMessage:
    kwargs: dict[str, Any] = {key: message[key] for key in ("tool_calls", "tool_call_id") if key in message}
    return ChatMessage(role=message["role"], content=message["content"], additional_kwargs=kwargs)


def from_llama(message: ChatMessage) -> harness.Message:
    kwargs = {
        key: message.additional_kwargs[key]
        for key in ("tool_calls", "tool_call_id")
        if key in message.additional_kwargs
    }
    return {"role": message.role.value, "content": message.content or "", **kwargs}


if __name__ == "__main__":
    harness.main({"buffer": chat_memory_buffer, "memory": memory})
