"""Part: something that wants into the prompt, and the short constructors for each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from ctxkit.context.labels import Label
from ctxkit.errors import PartError

Kind = Literal["system", "instruction", "memory", "passage", "turn", "tool_call", "tool_result", "question"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ROLES: Mapping[Kind, str] = {
    "system": "system",
    "instruction": "system",
    "memory": "system",
    "passage": "user",
    "turn": "user",
    "tool_call": "assistant",
    "tool_result": "tool",
    "question": "user",
}
_TURN_ROLES = ("user", "assistant", "system", "developer")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A content block that is not text, and the character offset of the content that it stands before.

    block: an image_url, input_audio or file block in OpenAI's form, or an opaque block of the provider (thinking).
    """

    offset: int
    block: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that wants into the prompt.

    kind: what it is; decides the role it is sent under and which budget floors and caps count it.
    content: its text.
    id: names it in plans and errors; `fit` gives "<kind>-<n>" where it is empty.
    title: printed above a passage, after its citation number.
    source: where it came from (a file and lines, a tool, a session), for reports and citations.
    attachments: what the content holds besides text, each at the character it stands before.
    priority: how much the caller cares, a positive factor on the value (1.0 is neutral).
    relevance: how likely it is to be needed for this answer, in [0, 1].
    pinned: must be in, verbatim; `fit` refuses rather than drop or reduce it.
    required: must be in, at whatever level fits; `fit` refuses rather than drop it.
    verbatim: may be dropped, but never reduced (a message with signed thinking).
    group: parts with one group name live or die together. Tool calls and their results are grouped without being asked.
    role: the chat role of a turn.
    tool_calls: the calls of a tool_call part, in OpenAI's form (id, type, function {name, arguments as a JSON string}).
    tool_call_id: which call a tool_result answers.
    name: who says it, where a chat has several of a role.
    label: how far it is trusted and who may read it; None for trusted and public. What is made of the part keeps it.
    message: the chat message that the part was made of, in OpenAI's form; sent as it is while the part is whole.
    """

    kind: Kind
    content: str
    id: str = ""
    title: str = ""
    source: str = ""
    priority: float = 1.0
    relevance: float = 1.0
    pinned: bool = False
    group: str | None = None
    role: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    required: bool = False
    verbatim: bool = False
    attachments: tuple[Attachment, ...] = ()
    message: Mapping[str, Any] | None = None
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    label: Label | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PartError(f"`kind` must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not isinstance(self.content, str):
            raise PartError(
                f"`content` of part {self.id or self.kind!r} must be a str, got {type(self.content).__name__}"
            )
        if not (math.isfinite(self.priority) and self.priority > 0):
            raise PartError(f"`priority` must be a finite number above 0, got {self.priority!r}")
        if not 0 <= self.relevance <= 1:
            raise PartError(f"`relevance` must be in [0, 1], got {self.relevance!r}")
        if self.label is not None and not isinstance(self.label, Label):
            raise PartError(f"`label` must be a Label or None, got {self.label!r}; `Label.parse` reads a text")
        if not self.role:
            object.__setattr__(self, "role", _ROLES[self.kind])
        self._check_role()

    def _check_role(self) -> None:
        if self.kind == "turn" and self.role not in _TURN_ROLES:
            raise PartError(f"`role` of a turn must be one of {', '.join(_TURN_ROLES)}, got {self.role!r}")
        if self.kind != "turn" and self.role != _ROLES[self.kind]:
            raise PartError(f"`role` of a {self.kind} is always {_ROLES[self.kind]!r}, got {self.role!r}")
        if (self.kind == "tool_call") != bool(self.tool_calls):
            raise PartError(
                f"`tool_calls` belongs to parts of kind 'tool_call' and only there; part kind is {self.kind!r}"
            )
        if (self.kind == "tool_result") != (self.tool_call_id is not None):
            raise PartError(
                f"`tool_call_id` belongs to parts of kind 'tool_result' and only there; part kind is {self.kind!r}"
            )

    def as_part(self) -> Part:
        return self

    def rewritten(self, content: str, **fields: Any) -> Part:
        """The part with other text (and other `fields`), as a level sends it. Attachments stay, at the end of the text.

        Pass `attachments=()` to leave them out.
        """
        ends = tuple(replace(one, offset=min(one.offset, len(content))) for one in self.attachments)
        return replace(self, content=content, message=None, name=self.sender, **{"attachments": ends, **fields})

    @property
    def sender(self) -> str:
        """The `name` that the part's message is sent with."""
        return self.name or str((self.message or {}).get("name") or "")


@runtime_checkable
class SupportsPart(Protocol):
    """Anything that can stand for a part, such as a search hit."""

    def as_part(self) -> Part: ...


def system(content: str, **fields: Any) -> Part:
    """The system prompt. Pinned unless `pinned=False`."""
    return Part("system", content, **{"pinned": True, **fields})


def instruction(content: str, **fields: Any) -> Part:
    """A rule for this answer, sent with the system prompt. Pinned unless `pinned=False`."""
    return Part("instruction", content, **{"pinned": True, **fields})


def question(content: str, **fields: Any) -> Part:
    """What is asked now. Pinned unless `pinned=False`."""
    return Part("question", content, **{"pinned": True, **fields})


def memory(content: str, **fields: Any) -> Part:
    """Something remembered from earlier sessions, sent with the system prompt."""
    return Part("memory", content, **fields)


def passage(content: str, **fields: Any) -> Part:
    """A retrieved text; numbered [1], [2], ... in the prompt, in the order given."""
    return Part("passage", content, **fields)


def turn(role: str, content: str, **fields: Any) -> Part:
    """One message of a conversation."""
    return Part("turn", content, role=role, **fields)


def tool_call(calls: Sequence[Mapping[str, Any]], content: str = "", **fields: Any) -> Part:
    """An assistant message that calls tools, in OpenAI's form."""
    return Part("tool_call", content, tool_calls=tuple(calls), **fields)


def tool_result(tool_call_id: str, content: str, **fields: Any) -> Part:
    """What a tool returned for one call."""
    return Part("tool_result", content, tool_call_id=tool_call_id, **fields)
