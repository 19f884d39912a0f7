"""MessageLedger: a conversation forgets whole messages, and never those that were pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxkit.errors import PolicyError
from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import Kept, Policy, Span, View


@dataclass(frozen=True)
class MessageLedger(Policy):
    """Retention by `context.spans`: whole messages leave, those of the lowest priority first, then the oldest.

    budget_tokens: kept after a prompt was read and after a turn. sinks: first tokens, kept even where their message
        leaves. slack_tokens: a message in the making may take this many beyond the budget; where the text grows by
        more, messages leave in the middle of a prompt or an answer.

    Never leave: pinned messages (system prompt, tool schemas, the task), the last one that has begun, and all messages
    of an id that one of these has. A tool call and its result have one id and leave together. Tokens between two spans
    belong to the one before them, tokens behind the last to it: an answer stays with its question until it has a span.
    What stays is seen without holes, so that the sinks never stand beyond the trained window.

    Raises PolicyError, when tokens should leave, where the pinned messages alone exceed the budget, or with the last
    message budget and slack together; the context then holds all that was fed.
    """

    budget_tokens: int = 4096
    sinks: int = 4
    slack_tokens: int = 1024
    places = True

    def __post_init__(self) -> None:
        if self.budget_tokens < 1 or min(self.sinks, self.slack_tokens) < 0:
            raise ValueError(f"`budget_tokens` must be at least 1, `sinks` and `slack_tokens` 0; got {self!r}")

    @property
    def most_kept(self) -> int:
        return self.budget_tokens + self.slack_tokens

    def retain(self, kept: Kept) -> Array | None:
        over = len(kept.positions) - self.budget_tokens
        if over <= (self.slack_tokens if kept.moment == "step" else 0):
            return None
        groups = _groups(kept.spans, kept.length)
        of = groups.of(kept.positions)
        pinned = np.isin(of, groups.pinned) | (kept.positions < self.sinks)
        self._check(int(pinned.sum()), int((pinned | (of == groups.last)).sum()))
        mask = np.ones(len(of), bool)
        for group in groups.leaving:
            if mask.sum() <= self.budget_tokens:
                break
            mask &= (of != group) | pinned
        return mask

    def _check(self, pinned: int, least: int) -> None:
        if pinned > self.budget_tokens or least > self.budget_tokens + self.slack_tokens:
            raise PolicyError(
                f"pinned messages and sinks take {pinned:,} tokens, the last message {least - pinned:,} more, and "
                f"{self.budget_tokens:,} may be kept, with {self.slack_tokens:,} of slack. Pin less, shorten the last "
                "message, or raise `budget_tokens`"
            )

    def place(self, view: View, first_query: int, label: int) -> View:
        return view.packed(first_query)


@dataclass(frozen=True)
class _Groups:
    """Messages that leave together. starts: int64 [spans]. numbers: int64 [spans], the group of each; sorted by starts.

    pinned: group numbers. last: the group of the last message. leaving: the others, in the order in which they leave.
    """

    starts: Array
    numbers: Array
    pinned: list[int]
    last: int
    leaving: list[int]

    def of(self, positions: Array) -> Array:
        """int64 [tokens], the group of each token."""
        return self.numbers[np.maximum(np.searchsorted(self.starts, positions, side="right") - 1, 0)]


def _groups(spans: Sequence[Span], length: int) -> _Groups:
    """Of the messages that have begun in a text of `length` tokens; where there are none, the text is one message."""
    begun = sorted((span for span in spans if span.start < length), key=lambda span: span.start) or [Span(0, length)]
    names = [span.id or f"\0{index}" for index, span in enumerate(begun)]  # without an id, a group of its own
    known = list(dict.fromkeys(names))  # in the order of their first messages
    numbers = [known.index(name) for name in names]
    pinned = sorted({number for number, span in zip(numbers, begun, strict=True) if span.pinned})
    priority = [max(span.priority for n, span in zip(numbers, begun, strict=True) if n == g) for g in range(len(known))]
    free = [group for group in range(len(known)) if group not in pinned and group != numbers[-1]]
    starts = np.array([span.start for span in begun])
    return _Groups(starts, np.array(numbers), pinned, numbers[-1], sorted(free, key=lambda group: priority[group]))
