"""Summariser: what a model makes of a text of any length, or why it made nothing of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Protocol

from ctxkit.compression.sources.counted import SURROGATE, TotalCounter
from ctxkit.compression.summaries.clip import clipped, finished
from ctxkit.compression.text.segment import divided, sentence_bounds
from ctxkit.errors import CtxkitError
from ctxkit.protocols import Model, PromptMessage, Sampling, Segment

REPLACEMENT = "\ufffd"
_TASK = "The summary is for this task, keep what it needs: "
_TEXT = "The text:\n"
_LEAST_ANSWER_TOKENS = 8
_LEAST_ROOM_TOKENS = 16
_MOST_ROUNDS = 12


class Rejection(Exception):
    """Why there is no summary."""


class _NotShorter(Rejection):
    """The model said as much as its source, or more."""


class SummaryCache(Protocol):
    """Where summaries are remembered: a dict, or what stores texts under keys, such as `session.SqliteOriginals`."""

    def get(self, key: str, /) -> str | None: ...

    def __setitem__(self, key: str, text: str, /) -> None: ...


@dataclass(frozen=True)
class Summariser:
    """Asks a model for summaries, each text once, never beyond the model's window.

    A text longer than the window is summarised in pieces, then the summaries of the pieces, and so on: each round at
    least halves what the model shortens. summary_tokens: the longest answer, in the model's tokens; less in a small
    window, so that an answer takes at most half of what its source may.
    """

    model: Model
    cache: SummaryCache
    summary_tokens: int
    instruction: str

    def told(self, task: str) -> Summariser:
        """The same, told what the summary is for. A task that would take much of the window is left out."""
        if not task.strip():
            return self
        told = replace(self, instruction=f"{self.instruction}{_TASK}{task}\n\n{_TEXT}")
        return told if told._prompt_tokens("") <= self.model.window_tokens // 4 else self

    def summary(self, text: str) -> str:
        """The summary of a text, at most `answer_tokens` long. Raises Rejection."""
        for done in range(_MOST_ROUNDS):
            chunks = self._chunks(text)
            if len(chunks) > 1:
                text = self._reduced(chunks)
                continue
            try:
                return self._said(text)
            except _NotShorter:
                if not done or self._counter.count(text) > self.answer_tokens:
                    raise
                return text  # the summaries of its pieces cannot be said in fewer words
        raise Rejection(f"its pieces still exceed the model's window after {_MOST_ROUNDS} rounds")

    @cached_property
    def answer_tokens(self) -> int:
        """Room for an answer: at most a quarter of the window, and a third of what the instruction leaves of it."""
        room = min(self.model.window_tokens // 4, (self.model.window_tokens - self._prompt_tokens("")) // 3)
        return min(self.summary_tokens, max(_LEAST_ANSWER_TOKENS, room))

    @cached_property
    def _counter(self) -> TotalCounter:
        return TotalCounter(self.model.counter)

    def _reduced(self, chunks: list[str]) -> str:
        """The summaries of the pieces of a text."""
        counts = self._counter.count_batch(chunks)
        text = "\n".join(map(self._piece, chunks, counts))
        if self._counter.count(text) >= sum(counts):
            raise Rejection(f"the summaries of its {len(chunks):,} pieces are no shorter than they are")
        return text

    def _piece(self, chunk: str, tokens: int) -> str:
        """What a piece becomes: one that is too short to be said in fewer words stays as it is."""
        try:
            return self._said(chunk) if tokens > _LEAST_ROOM_TOKENS else chunk.strip()
        except _NotShorter:
            return chunk.strip()

    def _said(self, text: str) -> str:
        """What the model makes of a text that fits, or made of it before."""
        key = self._key(text)
        known = self._known(key)
        if known is not None:
            return known
        summary = self._answer(text)
        try:
            self.cache[key] = summary
        except CtxkitError as error:
            _warn(f"a summary could not be kept: {error}")
        return summary

    def _known(self, key: str) -> str | None:
        try:
            return self.cache.get(key)
        except CtxkitError as error:
            _warn(f"the summaries made before cannot be read: {error}")
            return None

    def _answer(self, text: str) -> str:
        """A new answer of the model. Raises Rejection."""
        try:
            message = {"role": "user", "content": self._prompt(text)}
            reply = self.model.generate([message], Sampling(max_tokens=self.answer_tokens))
        except Exception as error:
            raise Rejection(f"{type(error).__name__}: {error}") from error
        summary = reply.text.rstrip(REPLACEMENT).strip()  # a character that the limit cut apart
        summary = finished(summary) if reply.finish_reason == "length" else summary
        self._check(summary, text, reply.finish_reason)
        capped = clipped(summary, lambda said: self._counter.count(said) <= self.answer_tokens)  # a server may not care
        if capped is None:
            raise Rejection(f"not one word of the answer fits into {self.answer_tokens:,} tokens")
        return capped

    def _check(self, summary: str, text: str, finish_reason: str) -> None:
        if not summary:
            raise Rejection("the model said nothing")
        if finish_reason not in ("stop", "length"):
            raise Rejection(f"the model ended with {finish_reason!r}")
        if REPLACEMENT in summary and REPLACEMENT not in text:
            raise Rejection("the answer is no whole text (it holds U+FFFD)")
        said, source = self._counter.count_batch([summary, text])
        if said >= source:
            raise _NotShorter(f"it takes {said:,} tokens, its source {source:,}")

    def _key(self, text: str) -> str:
        head = f"{self.model.name}\0{self.answer_tokens}\0{self.instruction}\0"
        return blake2b((head + text).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _prompt(self, text: str) -> str:
        return SURROGATE.sub(REPLACEMENT, self.instruction + text)

    def _prompt_tokens(self, text: str) -> int:
        message = PromptMessage("user", (Segment(self._prompt(text)),))
        return self.model.counter.render([message]).tokens

    def _chunks(self, text: str) -> list[str]:
        """The text, cut at sentences so that each piece and its summary fit the model's window. Raises Rejection."""
        limit = self.model.window_tokens - self.answer_tokens
        if self._prompt_tokens(text) <= limit:
            return [text]
        told = self._prompt_tokens("")
        room = limit - told
        if room < _LEAST_ROOM_TOKENS:
            raise Rejection(
                f"a window of {self.model.window_tokens:,} tokens has no room for a text to summarise beside an "
                f"instruction of {told:,} and an answer of {self.answer_tokens:,}; give a shorter `instruction`"
            )
        bounds, _ = divided(text, sentence_bounds(text), longest=2 * room)
        return [piece for chunk in self._packed(text, bounds, room) for piece in self._fitting(chunk, limit)]

    def _packed(self, text: str, bounds: list[int], room: int) -> Iterator[str]:
        """Runs of pieces of about `room` tokens each."""
        counts = self._counter.count_batch([text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)])
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
            raise Rejection("a single character exceeds the model's window")
        return [part for a, b in zip(bounds, bounds[1:], strict=False) for part in self._fitting(chunk[a:b], limit)]


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
