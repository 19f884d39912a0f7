"""What of a local model's words is the answer's text, what is a tool call, and what it only thought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctxkit.models.reasoning import CLOSING, OPENING, ThinkReader
from ctxkit.models.tool_calls import MARKERS, ToolCallReader

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class AnswerReader:
    """Takes an answer apart while it is written.

    think: for a reasoning model. calls: where the request had tools. markers: control tokens that mark the two, by id,
    and would not show as text.
    """

    def __init__(self, think: ThinkReader | None, calls: ToolCallReader | None, markers: Mapping[int, str]) -> None:
        self.markers = {} if think is None and calls is None else markers
        self._think = think
        self._calls = calls

    @property
    def tool_calls(self) -> tuple[Mapping[str, Any], ...]:
        return () if self._calls is None else tuple(self._calls.calls)

    @property
    def reasoning(self) -> str:
        return "" if self._think is None else self._think.reasoning

    def feed(self, text: str) -> str:
        """The answer's text in it, as far as it is certain."""
        answer = text if self._think is None else self._think.feed(text)
        return answer if self._calls is None else self._calls.feed(answer)

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        answer = "" if self._think is None else self._think.flush()
        return answer if self._calls is None else self._calls.feed(answer) + self._calls.flush()

    def finish_reason(self, reason: str) -> str:
        return "tool_calls" if reason == "stop" and self.tool_calls else reason


def control_markers(tokenizer: Tokenizer) -> dict[int, str]:
    """The markers of calls and thinking that are control tokens, by id."""
    known: Sequence[str] = (*MARKERS, OPENING, CLOSING)
    added = tokenizer.get_added_tokens_decoder()
    return {number: token.content for number, token in added.items() if token.special and token.content in known}
