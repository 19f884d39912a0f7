"""SummaryCompressor: a model says it in fewer words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from ctxkit.compression.counted import TotalCounter
from ctxkit.compression.json_tree import parse
from ctxkit.compression.json_write import quoted
from ctxkit.compression.segment import divided, sentence_bounds
from ctxkit.compression.slots import Slot, slots_of
from ctxkit.context.expand import expand_call
from ctxkit.context.group import Group
from ctxkit.context.level import Handle, Level, LevelRequest
from ctxkit.context.part import Part
from ctxkit.protocols import Model, PromptMessage, Sampling, Segment

INSTRUCTION = (
    "Summarise the text below in as few words as you can. Keep names, numbers, dates, paths, identifiers, decisions "
    "and open questions exactly as they are written. Add nothing. Answer with the summary only.\n\n"
)
_TASK = "The summary is for this task, keep what it needs: "
_TEXT = "The text:\n"
_HEADING = "[summary of"
_LEAST_SUMMARY_TOKENS = 8
_LEAST_ROOM_TOKENS = 16
_MOST_ROUNDS = 12
_REPLACEMENT = "\ufffd"


class SummaryRejected(UserWarning):
    """A summary was not used: the model failed, said nothing, or said more than the source. No level was made."""


class _Rejection(Exception):
    """Why there is no summary."""


@dataclass(frozen=True)
class SummaryCompressor:
    """Replaces each long content by a summary of any model.

    model: asked once for each text, or piece of a text that exceeds its window; never beyond that window.
    cache: answers by a digest of model, instruction and text; give a dict that outlives the compressor, or one on disk.
    summary_tokens: the longest summary, in the model's tokens. least_tokens: shorter contents stay whole.
    utility: of the level, in (0, 1).
    for_question: tell the model what the prompt asks; False makes summaries that serve every question, and are cached
        for all of them.

    A summary that is empty or not shorter than its source, and an error of the model, become a SummaryRejected warning
    and no level. Summaries of JSON are JSON. Pieces of a long text are summarised first, then their summaries.
    """

    model: Model
    cache: MutableMapping[str, str] = field(default_factory=dict, repr=False)
    summary_tokens: int = 256
    least_tokens: int = 64
    utility: float = 0.5
    instruction: str = INSTRUCTION
    for_question: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.utility < 1:
            raise ValueError(f"`utility` must be in (0, 1), got {self.utility!r}")
        for name in ("summary_tokens", "least_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        request = replace(request, counter=TotalCounter(request.counter))
        return self._with_task(request.question)._levels(group, request)

    def _with_task(self, question: str) -> SummaryCompressor:
        """The same, told what the summary is for. A question that would take much of the window is left out."""
        if not (self.for_question and question.strip()):
            return self
        told = replace(self, instruction=f"{self.instruction}{_TASK}{question}\n\n{_TEXT}")
        return told if told._prompt_tokens("") <= self.model.window_tokens // 4 else self

    def _levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        parts, handles = list(group.parts), []
        for slot in slots_of(group, request.counter):
            if slot.call is None and not slot.verbatim and self._is_long(slot):
                part = group.parts[slot.place]
                try:
                    parts[slot.place] = self._replaced(part, slot, request)
                except _Rejection as rejection:
                    warnings.warn(f"no summary of part {part.id!r}: {rejection}", SummaryRejected, stacklevel=2)
                    return
                handles.append(Handle.of_whole(part))
        if handles:
            yield Level("summary", tuple(parts), self.utility, f"summary by {self.model.name}", tuple(handles))

    def _is_long(self, slot: Slot) -> bool:
        return slot.tokens >= self.least_tokens and not slot.text.startswith((_HEADING, '{"' + _HEADING))

    def _replaced(self, part: Part, slot: Slot, request: LevelRequest) -> Part:
        lines = slot.text.count("\n") + 1
        way_back = f"; {expand_call(Handle.of_whole(part).ref)}" if request.expandable else ""
        heading = f"{_HEADING} {lines:,} line{'s' * (lines > 1)}{way_back}]"
        summary = self._summary(slot.text)
        in_json = parse(slot.text) is not None
        text = f"{{{quoted(heading)}:{quoted(summary)}}}" if in_json else f"{heading}\n{summary}"
        tokens = request.counter.count(text)
        if tokens >= slot.tokens:
            raise _Rejection(f"it takes {tokens:,} tokens, the source {slot.tokens:,}")
        ends = tuple(replace(one, offset=len(text)) for one in part.attachments)
        return part.rewritten(text, attachments=ends)

    def _summary(self, text: str) -> str:
        """The summary of a text of any length, in rounds. Raises _Rejection."""
        for _ in range(_MOST_ROUNDS):
            chunks = self._chunks(text)
            if len(chunks) <= 1:
                return self._said(text)
            counts = self.model.counter.count_batch(chunks)
            text = "\n".join(
                self._said(chunk) if tokens > _LEAST_ROOM_TOKENS else chunk.strip()
                for chunk, tokens in zip(chunks, counts, strict=True)
            )
        raise _Rejection(f"its pieces still exceed the model's window after {_MOST_ROUNDS} rounds")

    def _said(self, text: str) -> str:
        """What the model makes of a text that fits, or made of it before."""
        key = self._key(text)
        known = self.cache.get(key)
        if known is not None:
            return known
        try:
            reply = self.model.generate(
                [{"role": "user", "content": self.instruction + text}], Sampling(max_tokens=self._answer_tokens)
            )
        except Exception as error:
            raise _Rejection(f"{type(error).__name__}: {error}") from error
        summary = reply.text.rstrip(_REPLACEMENT).strip()
        self._check(summary, text, reply.finish_reason)
        self.cache[key] = summary
        return summary

    def _check(self, summary: str, text: str, finish_reason: str) -> None:
        if not summary:
            raise _Rejection("the model said nothing")
        if finish_reason not in ("stop", "length"):
            raise _Rejection(f"the model ended with {finish_reason!r}")
        if _REPLACEMENT in summary and _REPLACEMENT not in text:
            raise _Rejection("the answer is no whole text (it holds U+FFFD)")
        said, source = TotalCounter(self.model.counter).count_batch([summary, text])
        if said >= source:
            raise _Rejection(f"it takes {said:,} tokens, its source {source:,}")

    def _key(self, text: str) -> str:
        head = f"{self.model.name}\0{self._answer_tokens}\0{self.instruction}\0"
        return blake2b((head + text).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @property
    def _answer_tokens(self) -> int:
        """Room for an answer: at most a quarter of the window."""
        return max(_LEAST_SUMMARY_TOKENS, min(self.summary_tokens, self.model.window_tokens // 4))

    def _prompt_tokens(self, text: str) -> int:
        message = PromptMessage("user", (Segment(self.instruction + text),))
        return self.model.counter.render([message]).tokens

    def _chunks(self, text: str) -> list[str]:
        """The text, cut at sentences so that each piece and its summary fit the model's window. Raises _Rejection."""
        limit = self.model.window_tokens - self._answer_tokens
        if self._prompt_tokens(text) <= limit:
            return [text]
        room = limit - self._prompt_tokens("")
        if room < _LEAST_ROOM_TOKENS:
            raise _Rejection(f"a window of {self.model.window_tokens:,} tokens has no room for a text to summarise")
        bounds, _ = divided(text, sentence_bounds(text), longest=2 * room)
        return [piece for chunk in self._packed(text, bounds, room) for piece in self._fitting(chunk, limit)]

    def _packed(self, text: str, bounds: list[int], room: int) -> Iterator[str]:
        """Runs of pieces of about `room` tokens each."""
        counts = self.model.counter.count_batch([text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)])
        start, taken = 0, 0
        for at, tokens in zip(bounds, counts, strict=False):
            if taken and taken + tokens > room:
                yield text[start:at]
                start, taken = at, 0
            taken += tokens
        yield text[start:]

    def _fitting(self, chunk: str, limit: int) -> list[str]:
        """The chunk, halved until each piece really fits."""
        if self._prompt_tokens(chunk) <= limit:
            return [chunk]
        bounds, _ = divided(chunk, [0, len(chunk)], longest=max(1, len(chunk) // 2))
        if len(bounds) <= 2:
            raise _Rejection("a single character exceeds the model's window")
        return [part for a, b in zip(bounds, bounds[1:], strict=False) for part in self._fitting(chunk[a:b], limit)]
