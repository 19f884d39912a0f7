"""SummaryCompressor: a model says it in fewer words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.sources.slots import Slot, slots_of
from ctxkit.compression.structure.json_tree import parse
from ctxkit.compression.structure.json_write import quoted
from ctxkit.compression.summaries.clip import clipped
from ctxkit.compression.summaries.summariser import Rejection, Summariser, SummaryCache
from ctxkit.context.expand import expand_call
from ctxkit.context.group import Group
from ctxkit.context.level import Compressor, Handle, Level, LevelRequest
from ctxkit.context.part import Part
from ctxkit.protocols import Model

INSTRUCTION = (
    "Summarise the text below in as few words as you can. Keep names, numbers, dates, paths, identifiers, decisions "
    "and open questions exactly as they are written. Add nothing. Answer with the summary only.\n\n"
)
_HEADING = "[summary of"


class SummaryRejected(UserWarning):
    """A summary was not used: the model failed, said nothing, or said more than the source."""


@dataclass(frozen=True)
class SummaryCompressor:
    """Replaces each long content by a summary of any model.

    model: asked once for each text, or piece of a text that exceeds its window; never beyond that window.
    cache: answers by a digest of model, instruction and text; a dict, or `session.SqliteOriginals` for one on disk.
    summary_tokens: the longest summary: of what the model says, in its tokens, and of what stands in the prompt, with
        its heading, in the target's. What is longer ends with its last whole sentence.
    least_tokens: shorter contents stay whole.
    utility: of the level, in (0, 1).
    for_question: tell the model what the prompt asks; False makes summaries that serve every question, and are cached
        for all of them.
    fallback: asked for the levels of a group where there is no summary, e.g. `CentroidCompressor()`; None: no level.

    A summary that is empty or not shorter than its source, and an error of the model, become a SummaryRejected warning
    and never the level. Summaries of JSON are JSON. Pieces of a long text are summarised first, then their summaries.
    """

    model: Model
    cache: SummaryCache = field(default_factory=dict[str, str], repr=False)
    summary_tokens: int = 256
    least_tokens: int = 64
    utility: float = 0.5
    instruction: str = INSTRUCTION
    for_question: bool = True
    fallback: Compressor | None = None

    def __post_init__(self) -> None:
        if not 0 < self.utility < 1:
            raise ValueError(f"`utility` must be in (0, 1), got {self.utility!r}")
        for name in ("summary_tokens", "least_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        try:
            level = self._level(group, replace(request, counter=TotalCounter(request.counter)))
        except Rejection as rejection:
            warnings.warn(f"no summary of {rejection}", SummaryRejected, stacklevel=2)
            if self.fallback is not None:
                yield from self.fallback.levels(group, request)
            return
        if level is not None:
            yield level

    def _level(self, group: Group, request: LevelRequest) -> Level | None:
        """The group with summaries; None where nothing in it is long. Raises Rejection."""
        summariser = Summariser(self.model, self.cache, self.summary_tokens, self.instruction)
        parts = list(group.parts)
        handles: list[Handle] = []
        for slot in filter(self._is_long, slots_of(group, request.counter)):
            if not handles and self.for_question:
                summariser = summariser.told(request.question)
            part = group.parts[slot.place]
            try:
                parts[slot.place] = self._replaced(part, slot, request, summariser)
            except Rejection as rejection:
                raise Rejection(f"part {part.id!r}: {rejection}") from rejection
            handles.append(Handle.of_whole(part))
        method = f"summary by {self.model.name}"
        return Level("summary", tuple(parts), self.utility, method, tuple(handles)) if handles else None

    def _is_long(self, slot: Slot) -> bool:
        """Whether the slot is a content to summarise, and not a summary already."""
        if slot.call is not None or slot.verbatim or slot.tokens < self.least_tokens:
            return False
        return not slot.text.startswith((_HEADING, '{"' + _HEADING))

    def _replaced(self, part: Part, slot: Slot, request: LevelRequest, summariser: Summariser) -> Part:
        written = _writer(part, slot, expandable=request.expandable)

        def fits(said: str) -> bool:
            return request.counter.count(written(said)) <= self.summary_tokens

        said = clipped(summariser.summary(slot.text), fits)
        if said is None:
            raise Rejection(f"`summary_tokens` ({self.summary_tokens:,}) has no room for a word beside its heading")
        text = written(said)
        tokens = request.counter.count(text)
        if tokens >= slot.tokens:
            raise Rejection(f"it takes {tokens:,} tokens, the source {slot.tokens:,}")
        ends = tuple(replace(one, offset=len(text)) for one in part.attachments)
        return part.rewritten(text, attachments=ends)


def _writer(part: Part, slot: Slot, *, expandable: bool) -> Callable[[str], str]:
    """Writes a summary as it stands in the prompt: under a heading, as JSON where the source is JSON."""
    lines = slot.text.count("\n") + 1
    way_back = f"; {expand_call(Handle.of_whole(part).ref)}" if expandable else ""
    heading = f"{_HEADING} {lines:,} line{'s' * (lines > 1)}{way_back}]"
    if parse(slot.text) is None:
        return lambda summary: f"{heading}\n{summary}"
    return lambda summary: f"{{{quoted(heading)}:{quoted(summary)}}}"
