"""Level: one rendering of a group at one fidelity; Handle: the way back to the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol, runtime_checkable

from ctxkit.context.group import Group
from ctxkit.context.part import Part
from ctxkit.protocols import Counter


@dataclass(frozen=True, slots=True)
class Handle:
    """Names what was reduced or dropped, so that `plan.expand(handle)` gives the original back, byte for byte.

    start_line, end_line: 1-based lines of the part's content that are not in the prompt, both included.
    digest: blake2b of the whole original (`source_text`), to notice a handle of another plan.
    """

    part_id: str
    start_line: int
    end_line: int
    total_lines: int
    digest: str

    @classmethod
    def of_whole(cls, part: Part) -> Handle:
        source = source_text(part)
        lines = source.count("\n") + 1
        return cls(part.id, 1, lines, lines, content_digest(source))

    @property
    def ref(self) -> str:
        """What the `expand` tool takes: the part's id, with the lines where not all of it was left out."""
        whole = self.start_line == 1 and self.end_line >= self.total_lines
        return self.part_id if whole else f"{self.part_id}:{self.start_line}-{self.end_line}"

    def __str__(self) -> str:
        return f"{self.part_id} (lines {self.start_line}-{self.end_line} of {self.total_lines})"


def source_text(part: Part) -> str:
    """What a handle of the part gives back: its content and, of a tool call, each call as name(arguments) on a line."""
    functions = [call.get("function") or {} for call in part.tool_calls]
    calls = [f"{function.get('name', '')}({function.get('arguments', '')})" for function in functions]
    return "\n".join([part.content, *calls] if part.content else calls or [part.content])


def content_digest(content: str) -> str:
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Need:
    """A part of a level that is written as its difference to another part, the base.

    content: what the base must say. It stands before the part in the prompt, whole, or as a difference whose own base
    is there.
    """

    part_id: str
    base_id: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Level:
    """One rendering of a group.

    name: "full", "dropped", or what the compressor calls it.
    parts: the group's parts as they would be sent; empty where the group is dropped.
    utility: share of the group's value that this rendering keeps, in [0, 1].
    method: what made it.
    handles: where to find what this level leaves out.
    resize: the same rendering in at most so many tokens, where it has a size to choose: `resize(tokens)` counts the
        contents and call arguments of all its parts with the target's counter, and is None where nothing fits.
    needs: what else must be in the prompt so that this rendering can be read; no plan holds it without that.
    """

    name: str
    parts: tuple[Part, ...]
    utility: float
    method: str
    handles: tuple[Handle, ...] = ()
    resize: Callable[[int], Level | None] | None = field(default=None, compare=False, repr=False)
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class LevelRequest:
    """What a compressor may go by.

    question: what the prompt asks, "" where nothing is known. counter: the target model's, to measure texts with.
    expandable: the model will be given the `expand` tool, so a stub may tell it to use it. groups: all of the prompt,
    in order, also those that are pinned or that nobody asks levels for; empty where only one group is known.
    """

    question: str
    counter: Counter
    expandable: bool = False
    groups: Sequence[Group] = field(default=(), repr=False)


class Compressor(Protocol):
    """Makes cheaper levels of a group, best first, each only when asked for.

    A group with a pinned part is never offered to it. It leaves parts with `verbatim` as they are, and yields nothing
    for a group that it cannot make cheaper.
    """

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]: ...


@runtime_checkable
class JointCompressor(Protocol):
    """A compressor that looks at all the groups of one asking in one go: in full batches, or one beside the other."""

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]: ...

    def joint_levels(self, groups: Sequence[Group], request: LevelRequest) -> Sequence[Iterable[Level]]:
        """The levels of each group, in the order of the groups. `request.groups` are those that are not asked, too."""
        ...


@runtime_checkable
class Proposes(Protocol):
    """A compressor that knows, before it makes a level, which groups it makes much smaller than levels are on average.

    Of many groups only those are asked for their levels that an average level would help. These are asked as well.
    """

    def proposed(self, request: LevelRequest) -> Sequence[Group]: ...


def full(group: Group) -> Level:
    return Level("full", group.parts, utility=1.0, method="original")


DROPPED = Level("dropped", (), utility=0.0, method="dropped")
"""What became of a group that is not in the prompt. Its handles are those of its parts."""
