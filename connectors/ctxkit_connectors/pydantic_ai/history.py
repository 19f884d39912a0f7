"""A message history of Pydantic AI as chat messages, and back."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    RetryPromptPart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ctxkit.protocols import PromptMessage
from ctxkit_connectors.form import Form, arguments_of, chat_call

Block = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A part of the request at `place` of the history, or (part None) the response there. made: by us, or reduced."""

    place: int
    message: ModelMessage
    part: Any = None


class HistoryForm(Form[Piece]):
    """One chat message for each part of a request, and for each response.

    instructions: what stands before them. Files, and what a provider signed or ran itself, are sent as they are or not
    at all; a tool's result that is reduced becomes a text.
    """

    def __init__(self, history: Sequence[ModelMessage], instructions: str = "") -> None:
        self._given: dict[int, Any] = {}  # block -> what of the history it stands for
        system: list[tuple[dict[str, Any], list[Piece]]] = []
        if instructions:
            system.append(({"role": "system", "content": instructions}, []))
        super().__init__([*system, *self._pairs(history)])

    def history(self, sent: Iterable[PromptMessage]) -> list[ModelMessage]:
        """The messages of a plan: the same objects where nothing was changed or left out."""
        return [
            _joined(list(pieces)) for _, pieces in groupby(self.all_back(sent), key=lambda piece: id(piece.message))
        ]

    def reduced(self, items: Sequence[Piece], sent: PromptMessage) -> Sequence[Piece]:
        return [
            replace(one, part=self._reduced_part(one.part, sent)) if one.part else self._reduced_response(one, sent)
            for one in items
        ]

    def made(self, sent: PromptMessage) -> Sequence[Piece]:
        if sent.role == "assistant":
            return [Piece(-1, ModelResponse([TextPart(sent.content)]))] if sent.content else []
        part: Any = UserPromptPart(sent.content)
        if sent.role == "tool":
            part = ToolReturnPart(sent.name or "unknown", sent.content, str(sent.tool_call_id), outcome="interrupted")
        return [Piece(-1, ModelRequest([part]), part)]

    def _pairs(self, history: Sequence[ModelMessage]) -> Iterator[tuple[dict[str, Any], list[Piece]]]:
        for place, message in enumerate(history):
            if isinstance(message, ModelResponse):
                yield self._response(message), [Piece(place, message)]
                continue
            for part in message.parts:
                yield self._of_part(part), [Piece(place, message, part)]

    def _of_part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, UserPromptPart):
            content = part.content
            return {"role": "user", "content": content if isinstance(content, str) else list(map(self._block, content))}
        if isinstance(part, ToolReturnPart):
            return {"role": "tool", "tool_call_id": part.tool_call_id, "content": self._returned(part)}
        if isinstance(part, RetryPromptPart) and part.tool_name is not None:
            return {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.model_response()}
        if isinstance(part, RetryPromptPart | RetryFeedbackPart):
            return {"role": "user", "content": part.model_response()}
        # a system prompt, or the framework's own state: always in
        return {"role": "system", "content": part.content if isinstance(part, SystemPromptPart) else repr(part)}

    def _returned(self, part: ToolReturnPart) -> str | list[Block]:
        files = [self._block(file) for file in part.files]
        text = part.model_response_str()
        return [{"type": "text", "text": text}, *files] if files else text

    def _response(self, message: ModelResponse) -> dict[str, Any]:
        blocks = [self._answered(part) for part in message.parts if not isinstance(part, ToolCallPart)]
        form: dict[str, Any] = {"role": "assistant", "content": blocks or None}
        if blocks and all(block["type"] == "text" for block in blocks):
            form["content"] = "".join(block["text"] for block in blocks)
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        if calls:
            form["tool_calls"] = [
                chat_call(part.tool_call_id, part.tool_name, part.args_as_json_str()) for part in calls
            ]
        if any(part.provider_details for part in calls):  # a thought signature, for one
            form["signature"] = "provider_details"
        return form

    def _answered(self, part: Any) -> Block:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.content}
        if isinstance(part, ThinkingPart):
            return self._kept({"type": "thinking", "thinking": part.content, "signature": part.signature or ""}, part)
        return self._kept({"type": "server_tool_use", "block": repr(part)}, part)

    def _block(self, content: Any) -> Block:
        if isinstance(content, str | TextContent):
            return {"type": "text", "text": content if isinstance(content, str) else content.content}
        url = content.url if isinstance(content, ImageUrl) else None
        if isinstance(content, BinaryContent) and content.is_image:
            url = content.data_uri
        if url is not None:
            return self._kept({"type": "image_url", "image_url": {"url": url}}, content)
        return self._kept({"type": str(getattr(content, "kind", "file"))}, content)

    def _kept(self, block: Block, given: Any) -> Block:
        self._given[id(block)] = given
        return block

    def _reduced_part(self, part: Any, sent: PromptMessage) -> Any:
        content = self._content(sent)
        if isinstance(part, ToolReturnPart):
            return ToolReturnPart(
                part.tool_name,
                content,
                part.tool_call_id,
                metadata=part.metadata,
                timestamp=part.timestamp,
                outcome="success" if part.outcome == "success" else "failed",
            )
        return UserPromptPart(content)

    def _content(self, sent: PromptMessage) -> Any:
        if not sent.blocks:
            return sent.content
        return [
            segment.text if segment.block is None else self._given[id(segment.block)]
            for segment in sent.segments
            if segment.block is not None or segment.text
        ]

    def _reduced_response(self, piece: Piece, sent: PromptMessage) -> Piece:
        """Texts in their new form, then the calls with the arguments that are sent now."""
        arguments = arguments_of(sent)
        response: Any = piece.message
        parts: list[Any] = [
            TextPart(segment.text) if segment.block is None else self._given[id(segment.block)]
            for segment in sent.segments
            if segment.block is not None or segment.text
        ]
        for call in response.parts:
            if isinstance(call, ToolCallPart):
                text = arguments.get(call.tool_call_id, call.args_as_json_str())
                parts.append(call if text == call.args_as_json_str() else replace(call, args=text))
        return Piece(piece.place, replace(response, parts=parts))


def _joined(pieces: Sequence[Piece]) -> ModelMessage:
    """The message that pieces of one message make."""
    message = pieces[0].message
    if isinstance(message, ModelResponse):
        return message
    parts = [piece.part for piece in pieces]
    same = len(parts) == len(message.parts) and all(map(lambda one, given: one is given, parts, message.parts))
    return message if same else replace(message, parts=parts)
