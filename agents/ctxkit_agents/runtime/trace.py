"""Trace: what happened in a run as a tree, for the terminal, a notebook and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ctxkit_agents.runtime.events import Degraded, Event, Finished, Message, Started, Tool

_SHOWN_CHARS = 72


@dataclass
class Node:
    """One job: its own events, and the jobs below it in the order in which they began.

    finished: None while it runs, or where the process died.
    """

    path: str
    method: str
    events: list[Event] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()


class Trace(Sequence[Event]):
    """The events of a run, in order. `str()` is a tree, `to_json()` is for a file, and notebooks show it folded."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = tuple(events)

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: Any) -> Any:
        return self._events[index]

    def __repr__(self) -> str:
        return f"Trace({len(self):,} events, {len(self.messages):,} calls)"

    def __str__(self) -> str:
        return "\n".join(line for root in self.roots for line in _lines(root, "", ""))

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the models answered, in order."""
        return tuple(event for event in self._events if isinstance(event, Message))

    @property
    def degraded(self) -> tuple[str, ...]:
        """What was done worse than asked for, with the job that did it."""
        return tuple(f"{event.path}: {event.what}" for event in self._events if isinstance(event, Degraded))

    @property
    def roots(self) -> list[Node]:
        """The jobs that no other job began; one, as a rule."""
        nodes: dict[str, Node] = {}
        roots: list[Node] = []
        for event in self._events:
            if isinstance(event, Started):
                node = nodes[event.path] = Node(event.path, event.method)
                above = nodes.get(event.path.rpartition("/")[0])
                (above.children if above else roots).append(node)
            elif event.path in nodes:
                _add(nodes[event.path], event)
        return roots

    def to_dict(self) -> list[dict[str, Any]]:
        return [event.to_dict() for event in self._events]

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, default=str)

    def _repr_html_(self) -> str:
        inner = "".join(_html(root, opened=True) for root in self.roots)
        return (
            f'<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:70em;color:inherit">{inner}</div>'
        )


def _add(node: Node, event: Event) -> None:
    if isinstance(event, Finished):
        node.finished = event
    else:
        node.events.append(event)


def _lines(node: Node, first: str, rest: str) -> Iterator[str]:
    yield f"{first}{_head(node)}"
    below: list[Event | Node] = [*node.events, *node.children]
    for at, one in enumerate(below):
        last = at == len(below) - 1
        branch, deeper = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if isinstance(one, Node):
            yield from _lines(one, rest + branch, rest + deeper)
        else:
            yield f"{rest}{branch}{_told(one)}"


def _head(node: Node) -> str:
    kind = "" if node.method == node.name else f" ({node.method})"
    end = node.finished
    if end is None:
        return f"{node.name}{kind}  did not end"
    calls = f"{end.spent.calls:,} call" + ("" if end.spent.calls == 1 else "s")
    cost = f"{end.spent.tokens_in:,} in, {end.spent.tokens_out:,} out, {calls}, {end.took:.2f} s"
    return f"{node.name}{kind}  {cost}" + (f"  FAILED: {_short(end.error)}" if end.error else "")


def _told(event: Event) -> str:
    match event:
        case Message():
            again = " (from the checkpoint)" if event.replayed else ""
            calls = ", ".join(str(call.get("function", {}).get("name", "?")) for call in event.tool_calls)
            said = _short(event.text) or (f"calls {calls}" if calls else "(nothing)")
            return f"{event.step} [{event.tokens_in:,} in, {event.tokens_out:,} out]{again} {said}"
        case Tool():
            again = " (from the checkpoint)" if event.replayed else ""
            given = _short(json.dumps(dict(event.arguments), ensure_ascii=False, default=str))
            became = f"{'FAILED: ' if event.failed else '-> '}{_short(event.result)}"
            return f"{event.step} {event.name} {given}{again} {became}"
        case Degraded():
            return f"degraded: {event.what}"
    return event.type


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


def _html(node: Node, *, opened: bool = False) -> str:
    rows = "".join(f"<li>{_event_html(event)}</li>" for event in node.events)
    rows += "".join(f"<li>{_html(child)}</li>" for child in node.children)
    failed = node.finished is None or bool(node.finished.error)
    style = "font-weight:600;color:#e03131" if failed else "font-weight:600"
    shown = " open" if opened or failed else ""
    return (
        f'<details{shown}><summary style="cursor:pointer"><span style="{style}">{escape(_head(node))}</span></summary>'
        f'<ul style="list-style:none;margin:2px 0;padding-left:1.2em;border-left:1px solid #868e96">{rows}</ul>'
        "</details>"
    )


def _event_html(event: Event) -> str:
    line = escape(_told(event))
    whole = event.text if isinstance(event, Message) else event.result if isinstance(event, Tool) else ""
    if len(whole) <= _SHOWN_CHARS:
        return line
    return (
        f"<details><summary>{line}</summary>"
        f'<pre style="white-space:pre-wrap;margin:2px 0 6px">{escape(whole)}</pre></details>'
    )
