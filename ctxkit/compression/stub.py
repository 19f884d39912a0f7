"""StubCompressor: one line in place of each text."""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.sources.slots import Slot, rewritten, slots_of
from ctxkit.compression.structure.json_tree import Node, parse
from ctxkit.compression.structure.json_write import quoted
from ctxkit.context.expand import expand_call
from ctxkit.context.group import Group
from ctxkit.context.level import Handle, Level, LevelRequest
from ctxkit.context.part import Part

_STUB = re.compile(r"\[[\w ]+ omitted(?:: .*)?\](?: \[[\w ,]+ omitted\])?")
_SHORT_CHARS = 60
_BLOCK_NAMES = {"image_url": "image", "input_image": "image", "image": "image", "input_audio": "audio", "file": "file"}


@dataclass(frozen=True)
class StubCompressor:
    """Says what stood there and how much, and how to get it back where the model can ask for it.

    [tool result omitted: 512 lines, 20,113 tokens; expand("tool_result-3")]

    Arguments of tool calls keep their keys and short values. utility: of the level, in (0, 1).
    """

    utility: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.utility < 1:
            raise ValueError(f"`utility` must be in (0, 1), got {self.utility!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        request = replace(request, counter=TotalCounter(request.counter))
        slots = slots_of(group, request.counter)
        texts = [self._text(group.parts[slot.place], slot, request) for slot in slots]
        counts = request.counter.count_batch(texts)
        shorter = {
            (slot.place, slot.call): text for slot, text, n in zip(slots, texts, counts, strict=True) if n < slot.tokens
        }
        parts = tuple(_stubbed(part, place, shorter) for place, part in enumerate(group.parts))
        before = sum(slot.tokens for slot in slots)
        after = sum(slot.tokens for slot in slots_of(Group(group.index, group.positions, parts), request.counter))
        if after >= before:
            return
        handles = (Handle.of_whole(old) for old, new in zip(group.parts, parts, strict=True) if old is not new)
        yield Level("stub", parts, self.utility, "stub", tuple(handles))

    def _text(self, part: Part, slot: Slot, request: LevelRequest) -> str:
        if slot.verbatim:
            return slot.text
        if slot.call is not None:
            return short_arguments(slot.text)
        return slot.text if _STUB.fullmatch(slot.text) else _line(part, slot, expandable=request.expandable)


def _line(part: Part, slot: Slot, *, expandable: bool) -> str:
    lines = slot.text.count("\n") + 1
    size = f"{lines:,} line{'s' * (lines > 1)}, {slot.tokens:,} token{'s' * (slot.tokens != 1)}"
    way_back = f"; {expand_call(Handle.of_whole(part).ref)}" if expandable else ""
    return f"[{_name(part)} omitted: {size}{way_back}]"


def _name(part: Part) -> str:
    return f"{part.role} message" if part.kind == "turn" else part.kind.replace("_", " ")


def _stubbed(part: Part, place: int, shorter: dict[tuple[int, int | None], str]) -> Part:
    """The part with its stubs, and with a word for each kind of attachment; itself where nothing changes."""
    calls = {i: shorter[place, i] for i in range(len(part.tool_calls)) if (place, i) in shorter}
    attached = () if part.verbatim else part.attachments
    if not calls and not attached and (place, None) not in shorter:
        return part
    content = shorter.get((place, None), part.content)
    names = Tally(_BLOCK_NAMES.get(str(one.block.get("type")), "attachment") for one in attached)
    labels = [f"[{name if n == 1 else f'{n} {name}s'} omitted]" for name, n in names.items()]
    return rewritten(part, " ".join(filter(None, [content, *labels])), calls, attachments=())


def short_arguments(text: str) -> str:
    """The JSON object of a call with short values as they are and long ones counted; other texts as they are.

    >>> short_arguments('{"path": "a/b.py", "lines": [1, 2], "limit": 1e3}')
    '{"path":"a/b.py","lines":[1, 2],"limit":1e3}'
    """
    nodes = parse(text)
    if nodes is None or nodes[0].opener != "{":
        return text
    fields = (f"{text[slice(*node.key)]}:{_value(text, node)}" for node in nodes[1:] if node.parent == 0 and node.key)
    return "{" + ",".join(fields) + "}"


def _value(text: str, node: Node) -> str:
    literal = text[node.start : node.end]
    if len(literal) <= _SHORT_CHARS or not node.opener:
        return literal
    if node.is_container:
        what = f"{node.children:,} {'item' if node.opener == '[' else 'field'}{'s' * (node.children != 1)}"
    else:
        what = f"{len(json.loads(literal)):,} chars"
    return quoted(f"[{what} omitted]")
