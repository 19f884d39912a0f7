"""Flow: what texts of which label may do in an agent: open a role, trigger a tool, leave by a sink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ctxkit.context import Label, Part, Plan
from ctxkit.context.group import identified
from ctxkit.context.labels import DEFAULT, joined
from ctxkit.context.part import SupportsPart
from ctxkit_agents.errors import FlowBlocked, ToolError
from ctxkit_agents.flow.markers import harmless

Context = Plan | Iterable[Part | SupportsPart]
"""What a model has seen: a plan, or the parts in its prompt."""

UNTRUSTED = Label("untrusted")
_ORDERS = ("system", "developer")  # roles whose texts a model obeys
_NAMED = 5  # parts named in an error


class LabelledTool(Protocol):
    """A tool that says which context may trigger it, such as a FunctionTool. label: "" where nothing is said."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...


@dataclass(frozen=True)
class Flow:
    """A policy of information flow, by the labels of the parts that a model has seen.

    Permissive information flow analysis (arXiv 2410.03055) is how fewer labels than all reach an answer: see
    `PermissiveFlow`. This policy takes the plain rule: what a model writes has the label of everything it has seen.

    unlabelled_tools: the most that may trigger a tool which names no label; trusted and public by default.
    sinks: by name, the most that may leave there. A sink that is not named takes nothing.
    tell: a blocked tool call is a ToolError, which an agent tells the model, and no FlowBlocked.
    escape: break the role markers that untrusted texts spell. Needed for servers that would read them; a local model
        reads them as plain text anyway.
    """

    unlabelled_tools: Label = DEFAULT
    sinks: Mapping[str, Label] = field(default_factory=dict[str, Label])
    tell: bool = False
    escape: bool = True

    def admitted(self, parts: Iterable[Part | SupportsPart]) -> tuple[Part, ...]:
        """The parts as they may enter a prompt: untrusted ones without role markers.

        Raises FlowBlocked for an untrusted part that would be sent in a role whose texts a model obeys.
        """
        found = identified(list(parts))
        blocked = [part for part in found if not _trusted(part) and part.role in _ORDERS]
        if blocked:
            raise FlowBlocked(
                f"{_named(blocked)} would be sent in the role {blocked[0].role!r}, and a model obeys what stands "
                f"there. Send it as a passage or a tool result, or label it trusted if you are sure.",
                step="role",
                part_ids=tuple(part.id for part in blocked),
                label=joined(part.label for part in blocked),
                allowed=Label(secrecy="secret", readers=frozenset()),
            )
        return tuple(harmless(part) if self.escape and not _trusted(part) else part for part in found)

    def check_tool_call(self, context: Context, tool: LabelledTool) -> None:
        """Whether the tool may be triggered by a model that has seen this. For an agent's `before_tool`.

        Raises FlowBlocked, or a ToolError with the same words under `tell`; ValueError for a label that is none.
        """
        try:
            check_tool_call(context, tool, unlabelled=self.unlabelled_tools)
        except FlowBlocked as blocked:
            if self.tell:
                raise ToolError(str(blocked)) from blocked
            raise

    def check_output(self, context: Context | Label, sink: str) -> None:
        """Whether an answer made from this may leave by the sink. Raises FlowBlocked.

        context: what the model has seen, or the answer's own label where more is known (`PermissiveFlow`).
        """
        allowed = self.sinks.get(sink)
        if allowed is None:
            known = ", ".join(map(repr, sorted(self.sinks))) or "none"
            raise FlowBlocked(
                f"{sink!r} is no sink of this policy, whose sinks are: {known}. Name it in `sinks` with the most that "
                f"may leave there.",
                step=f"sink {sink}",
                part_ids=(),
                label=context if isinstance(context, Label) else label_of(context),
                allowed=DEFAULT,
            )
        what, way_out = f"the sink {sink!r} takes", "answer without it (`PermissiveFlow` may)"
        if isinstance(context, Label):
            if not context.flows_to(allowed):
                message = f"{what} {allowed} at most, and the answer is {context}; {way_out}, or allow the sink more."
                raise FlowBlocked(message, step=f"sink {sink}", part_ids=(), label=context, allowed=allowed)
            return
        _check(context, allowed, f"sink {sink}", f"{what} {allowed} at most", f"{way_out}, or allow the sink more")

    def result_label(self, context: Context, own: Label = UNTRUSTED) -> Label:
        """The label of what a tool returns: its own, and that of the context that wrote its arguments."""
        return own.join(label_of(context))


def check_tool_call(context: Context, tool: LabelledTool, *, unlabelled: Label = DEFAULT) -> None:
    """Raises FlowBlocked where the context holds what must not trigger the tool, and names it.

    unlabelled: the most that may trigger a tool which names no label. Raises ValueError for a label that is none.
    """
    allowed = Label.parse(tool.label) if tool.label else unlabelled
    _check(
        context,
        allowed,
        f"tool {tool.name}",
        f"the tool {tool.name!r} may be triggered by {allowed} text at most",
        "leave it out of the prompt, answer without the tool, or give the tool a higher `label`",
    )


def label_of(context: Context) -> Label:
    """The label of everything in the context together."""
    if isinstance(context, Plan):
        return context.label
    return joined(item.as_part().label for item in context)


def _check(context: Context, allowed: Label, step: str, rule: str, way_out: str) -> None:
    blocked = [part for part in _parts(context) if part.label is not None and not part.label.flows_to(allowed)]
    if blocked:
        raise FlowBlocked(
            f"{rule}, and the context holds {_named(blocked)}; {way_out}.",
            step=step,
            part_ids=tuple(part.id for part in blocked),
            label=joined(part.label for part in blocked),
            allowed=allowed,
        )


def _parts(context: Context) -> tuple[Part, ...]:
    if isinstance(context, Plan):
        return tuple(decision.sent for decision in context.kept if decision.sent is not None)
    return identified(list(context))


def _named(parts: list[Part]) -> str:
    told = [f"part {part.id!r} ({part.label})" for part in parts[:_NAMED]]
    return ", ".join(told) + (f" and {len(parts) - _NAMED:,} more" if len(parts) > _NAMED else "")


def _trusted(part: Part) -> bool:
    return part.label is None or part.label.trusted
