"""Labels: whose words are in a prompt, and what an answer to it may do.

The messages of a request are the caller's own, unless one says something else in its field `x_ctxkit`. Passages are
anybody's: they are untrusted unless their document's metadata say otherwise, and are quoted in the prompt. What a model
writes has the label of all that it has seen, so a tool call behind untrusted passages may be theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ctxkit.context.labels import INTEGRITY, Label, joined
from ctxkit.context.part import Part
from ctxkit.protocols import ChatMessage, Reply

if TYPE_CHECKING:
    from ctxkit.retrieval import Hit

Untrusted = Literal["allow", "flag", "refuse_tools"]
"""What is done with tool calls behind untrusted text: nothing, they are named in the report, they are withheld."""

UNTRUSTED = Label("untrusted")
FIELD = "x_ctxkit"
"""Of a message or an item: holds its label. Never sent to a model."""
_ORDER: tuple[Untrusted, ...] = get_args(Untrusted)  # the strictest last


@dataclass(frozen=True, slots=True)
class Trust:
    """prompt: the label of all that the model is shown. policy: what holds for the request."""

    prompt: Label
    policy: Untrusted

    @property
    def refuses_tools(self) -> bool:
        return self.policy == "refuse_tools" and not self.prompt.trusted

    def told(self) -> dict[str, Any]:
        """`x_ctxkit.labels`, as far as it is known before the answer."""
        return {"prompt": str(self.prompt), "untrusted": self.policy}

    def screened(self, reply: Reply) -> Reply:
        """The reply that is given: under "refuse_tools", and behind untrusted text, without its tool calls."""
        if not (reply.tool_calls and self.refuses_tools):
            return reply
        names = ", ".join(f"`{(call.get('function') or {}).get('name', '')}`" for call in reply.tool_calls)
        refusal = f"a call of {names} was withheld: the prompt holds untrusted text, which may have asked for it"
        return replace(reply, tool_calls=(), finish_reason="content_filter", refusal=refusal)


def stricter(ours: Untrusted, asked: Untrusted | None) -> Untrusted:
    """The policy of a request: the server's, or a stricter one of the caller's own."""
    return ours if asked is None or _ORDER.index(asked) < _ORDER.index(ours) else asked


def as_passage(hit: Hit, own: Label = UNTRUSTED) -> Part:
    """A hit as a part with its label, and without role markers where it is untrusted. own: the label of its index.

    The document's metadata say more under "label": its secrecy and readers, and its integrity, which then counts in
    place of the index's. Raises PartError where that is no label.
    """
    from ctxkit_agents.flow.markers import harmless

    part = hit.as_part()
    says = {piece.strip() for piece in str(hit.chunk.metadata.get("label", "")).split("+")}
    label = joined([part.label] if says & {*INTEGRITY} else [part.label, own])
    labelled = replace(part, label=None if label.is_default else label)
    return labelled if label.trusted else harmless(labelled)


def marked(message: ChatMessage, label: Label) -> dict[str, Any]:
    """The message with its label, as it is stored."""
    return dict(message) if label.is_default else {**message, FIELD: {"label": str(label)}}


def unmarked(messages: Sequence[ChatMessage]) -> tuple[list[dict[str, Any]], dict[int, Label]]:
    """The messages as a model is sent them, and by position the labels that they say. Raises ValueError."""
    bare = [{key: value for key, value in message.items() if key != FIELD} for message in messages]
    said = {at: message[FIELD] for at, message in enumerate(messages) if message.get(FIELD) is not None}
    return bare, {at: _label(at, field) for at, field in said.items()}


def _label(at: int, field: Any) -> Label:
    label = field.get("label", "") if isinstance(field, Mapping) else None
    if not isinstance(label, str):
        raise ValueError(f'`messages.{at}.{FIELD}` must be {{"label": a text}}')
    return Label.parse(label)


def with_calls(report: Mapping[str, Any], call_ids: Sequence[str]) -> dict[str, Any]:
    """`x_ctxkit` of an answer with these tool calls: under "flag", those behind untrusted text are named in it."""
    labels = report["labels"]
    if not call_ids or labels["untrusted"] != "flag" or Label.parse(labels["prompt"]).trusted:
        return dict(report)
    return {**report, "labels": {**labels, "tool_calls": [*labels.get("tool_calls", ()), *call_ids]}}
