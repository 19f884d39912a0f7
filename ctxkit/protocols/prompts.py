"""What a model is asked: messages and tools, their rendering, and who counts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ChatMessage = Mapping[str, Any]
"""One message as OpenAI's chat API writes it: role, content and, for tools, tool_calls or tool_call_id."""

Tool = Mapping[str, Any]
"""One tool as OpenAI's chat API writes it: {"type": "function", "function": {name, description, parameters}}."""

TEMPLATE = "template"
"""Owner of the prompt tokens that belong to no part: role markers, separators, the generation prompt."""

TOOLS = "tools"
"""Owner of the prompt tokens that the tool schemas take, where they can be told from the template."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a message and the id of the part that owns it (None: glue, charged to the template).

    block: a content block that is not text (an image, a file, signed thinking), as the caller's message wrote it; the
        segment's text is then empty.
    """

    text: str
    owner: str | None = None
    block: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One chat message that remembers which part each piece of its text came from.

    owner: charged for what the message carries outside its text (tool calls).
    original: the message as the caller gave it, in OpenAI's form. What stands in it unchanged is sent as it was given,
        keys that ctxkit knows nothing of included.
    """

    role: str
    segments: tuple[Segment, ...]
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    owner: str | None = None
    original: ChatMessage | None = None

    @property
    def content(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def blocks(self) -> tuple[Mapping[str, Any], ...]:
        """The content blocks that are not text, in order."""
        return tuple(segment.block for segment in self.segments if segment.block is not None)

    def to_dict(self) -> dict[str, Any]:
        """The message in OpenAI's chat format."""
        if self.original is not None:
            return dict(self.original)
        message: dict[str, Any] = {"role": self.role, "content": self._content_value()}
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            message["name"] = self.name
        return message

    def _content_value(self) -> str | list[dict[str, Any]]:
        if not self.blocks:
            return self.content
        return [
            dict(segment.block) if segment.block is not None else {"type": "text", "text": segment.text}
            for segment in self.segments
            if segment.block is not None or segment.text
        ]


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a counter made of some messages.

    tokens: length of the prompt, generation prompt included.
    ids: the exact ids the model is fed, None where the counter is an estimate.
    by_owner: tokens per owner (part ids, `TEMPLATE`, `TOOLS`); sums to `tokens` exactly.
    """

    tokens: int
    ids: tuple[int, ...] | None
    by_owner: Mapping[str, int]


class Counter(Protocol):
    """Counts with one model's own tokenizer and chat template.

    `exact` is False for an estimator; its counts are then upper bounds.
    """

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def count(self, text: str) -> int:
        """Tokens of `text` alone, as plain text: special tokens spelled in it are ordinary characters."""
        ...

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """`count` of each text; equal texts are tokenised once."""
        ...

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        """The whole prompt: chat template, tools and generation prompt included. Raises PromptError."""
        ...


class Prompt(Protocol):
    """What a model can be given: a Plan, or anything with messages and, where known, exact ids."""

    @property
    def messages(self) -> Sequence[PromptMessage]: ...

    @property
    def ids(self) -> tuple[int, ...] | None: ...

    @property
    def tools(self) -> Sequence[Tool]: ...
