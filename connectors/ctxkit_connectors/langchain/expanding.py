"""The `expand` tool of an agent: what a request left out is still in the state."""

from __future__ import annotations

from typing import Any

from langchain.tools import ToolRuntime, tool
from langchain_core.messages import AIMessage, BaseMessage

from ctxkit.context.chat import conversation
from ctxkit.context.expand import EXPAND, EXPAND_NAME, parse_ref
from ctxkit.context.level import source_text
from ctxkit_connectors.langchain.messages import OpenAIForm


def expanded(messages: list[BaseMessage], ref: str) -> str:
    """The text behind a ref that the middleware's requests showed, of an agent's messages without the system prompt."""
    name, lines = parse_ref(ref)
    parts = conversation(OpenAIForm([AIMessage(""), *messages]).dicts).parts  # place 0 is the system prompt's
    part = next((part for part in parts if part.id == name), None)
    if part is None:
        return f"There is nothing behind {ref!r}: pass a ref exactly as it stands in expand(...)."
    text = source_text(part)
    return text if lines is None else "\n".join(text.split("\n")[lines[0] - 1 : lines[1]])


@tool(EXPAND_NAME, description=EXPAND["function"]["description"])
def expand_tool(ref: str, runtime: ToolRuntime[Any, Any]) -> str:
    """Gives back the text of a message from the state of the agent that calls it."""
    return expanded(list(runtime.state["messages"]), ref)
