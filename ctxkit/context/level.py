"""Level: one rendering of a group at one fidelity; Handle: the way back to the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from ctxkit.context.group import Group
from ctxkit.context.part import Part


@dataclass(frozen=True, slots=True)
class Handle:
    """Names what was reduced or dropped, so that `plan.expand(handle)` gives the original back, byte for byte.

    start_line, end_line: 1-based lines of the part's content that are not in the prompt, both included.
    digest: blake2b of the whole original content, to notice a handle of another plan.
    """

    part_id: str
    start_line: int
    end_line: int
    total_lines: int
    digest: str

    @classmethod
    def of_whole(cls, part: Part) -> Handle:
        lines = part.content.count("\n") + 1
        return cls(part.id, 1, lines, lines, content_digest(part.content))

    def __str__(self) -> str:
        return f"{self.part_id} (lines {self.start_line}-{self.end_line} of {self.total_lines})"


def content_digest(content: str) -> str:
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Level:
    """One rendering of a group.

    name: "full", "dropped", or what the compressor calls it.
    parts: the group's parts as they would be sent; empty where the group is dropped.
    utility: share of the group's value that this rendering keeps, in [0, 1].
    method: what made it.
    handles: where to find what this level leaves out.
    """

    name: str
    parts: tuple[Part, ...]
    utility: float
    method: str
    handles: tuple[Handle, ...] = ()


class Compressor(Protocol):
    """Makes cheaper levels of a group, best first, each only when asked for. Pinned groups are never offered to it."""

    def levels(self, group: Group, question: str) -> Iterator[Level]: ...


def full(group: Group) -> Level:
    return Level("full", group.parts, utility=1.0, method="original")


def dropped(group: Group) -> Level:
    return Level(
        "dropped", (), utility=0.0, method="dropped", handles=tuple(Handle.of_whole(part) for part in group.parts)
    )
