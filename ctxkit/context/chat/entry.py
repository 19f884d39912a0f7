"""Entry: one message on its way to a part; Repair: what was changed about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctxkit.context.part import Attachment
from ctxkit.protocols import ChatMessage

REASONING_KEYS = ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks")
"""Keys of an assistant message that hold what the model thought before it spoke."""

CLIENT_CALLS = ("function", "custom")
"""Types of tool calls that the caller answers; a provider answers every other type itself."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A message that could not be sent as it was given.

    index: position of the message in the given list, from 0. problem: what was wrong. action: what was done about it.
    """

    index: int
    problem: str
    action: str

    def __str__(self) -> str:
        return f"message {self.index}: {self.problem}; {self.action}"


class Entry:
    """One message as it is read, paired and grouped. Most messages need nothing but the five arguments.

    index: position in the given list. message: what is sent. role: of the message; "tool" for results only.
    text, attachments: of its content. calls: those that the caller must answer. answers: the call that a result names.
    thought: an assistant message that holds reasoning and nothing else.
    verbatim: holds something signed, or answered by the provider; may be dropped, never edited.
    plain: nothing but a role and a text. suffix: tells its id from those of other entries with its index.
    folded: the text of a result that answers no call, in the user's role without being the user's words.
    The rest are the fields of the part to be.
    """

    attachments: tuple[Attachment, ...] = ()
    calls: tuple[Mapping[str, Any], ...] = ()
    answers: str | None = None
    thought: bool = False
    verbatim: bool = False
    folded: bool = False
    suffix: str = ""
    group: str | None = None
    pinned: bool = False
    required: bool = False
    priority: float = 1.0

    def __init__(self, index: int, message: ChatMessage, role: str, text: str, plain: bool = False) -> None:
        self.index = index
        self.message = message
        self.role = role
        self.text = text
        self.plain = plain

    @property
    def says(self) -> bool:
        """Whether it is assistant text: no call, no result."""
        return self.role == "assistant" and not self.calls

    @property
    def asks(self) -> bool:
        """Whether the user said it."""
        return self.role == "user" and not self.folded
