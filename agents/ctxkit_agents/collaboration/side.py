"""Side: one model's view of a text that several write, kept in its memory and its own tokens.

Models with different tokenizers exchange text. A side makes its tokens follow the text: what it wrote itself stays in
the tokens it was written in, what others wrote is tokenised, and where the two meet inside a word the seam is
tokenised anew. Only what so changed is read again. Nothing is read before logits are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from os.path import commonprefix
from typing import Protocol

import numpy as np

from ctxkit_agents.collaboration.tokens import INSIDE, Tokens


class Synced(Protocol):
    """What a reader did: tokens that it had, and tokens that it read."""

    @property
    def reused(self) -> int: ...

    @property
    def read(self) -> int: ...


class Reader(Protocol):
    """What a side reads with; a `LocalSession` is one."""

    def __len__(self) -> int: ...

    @property
    def logits(self) -> np.ndarray: ...

    @property
    def whole_from(self) -> int: ...

    def step(self, ids: Sequence[int]) -> np.ndarray: ...

    def sync_ids(self, ids: Sequence[int]) -> Synced: ...

    def sync_rows(self, ids: Sequence[int], last: int) -> np.ndarray: ...


class AllowanceSpent(Exception):
    """A side may read or write no more; caught by the loop, which ends the answer there."""


@dataclass
class Meter:
    """What a side may read and write, and did.

    tokens_in: read that others wrote, or again. tokens_out: written, also what was not taken. reread: of tokens_in,
    those of text that it had read before. passes: times that the model ran. stopped: when set, there are no more.
    """

    most_in: float = float("inf")
    most_out: float = float("inf")
    tokens_in: int = 0
    tokens_out: int = 0
    reread: int = 0
    passes: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def may_read(self, tokens: int) -> None:
        if self.stopped.is_set():
            raise AllowanceSpent("it was told to stop")
        if self.tokens_in + tokens > self.most_in:
            raise AllowanceSpent(f"it may read no more than {self.most_in:,.0f} tokens")

    def write(self) -> None:
        if self.tokens_out + 1 > self.most_out:
            raise AllowanceSpent(f"it may write no more than {self.most_out:,.0f} tokens")
        self.tokens_out += 1


@dataclass(frozen=True)
class Look:
    """What a model would write next. text: what the token adds. ends: it ends the answer.

    top: the highest probabilities, falling; the first is the token's.
    """

    token: int
    text: str
    ends: bool
    top: tuple[float, ...]


@dataclass
class _Read:
    """How far the reader has come. ids: its first ones that still hold. chars: of the text, likewise."""

    ids: int = 0
    chars: int = 0


class Side:
    """A prompt and the output so far, in one model's tokens.

    head: the prompt's ids, by the model's chat template. lead: a prompt as plain text, which the output continues, and
    is tokenised together with. eos_ids: end an answer. window_tokens: most of prompt and output together.

    Not for several threads at once.
    """

    def __init__(
        self,
        reader: Reader,
        tokens: Tokens,
        *,
        head: Sequence[int] = (),
        lead: str = "",
        eos_ids: Collection[int] = (),
        window_tokens: int = 1 << 62,
        meter: Meter | None = None,
        name: str = "side",
    ) -> None:
        self.name = name
        self.reader = reader
        self.tokens = tokens
        self.eos_ids = frozenset(eos_ids)
        self.window_tokens = window_tokens
        self.meter = meter or Meter()
        begun = tokens.encode(lead)
        self.ids = [*head, *begun.ids]
        self.prompt_tokens = len(self.ids)
        self._head, self._lead, self._text = len(head), len(lead), lead
        self._ends = begun.ends  # of the ids behind the head
        self._unpaid = [True] * len(self.ids)  # read by somebody else's will, so paid for when it is read
        self._done = _Read()
        self._logits: np.ndarray | None = None
        self._plan: tuple[int, list[int]] = (0, [])  # the latest proposal: where it began, and all ids then

    @property
    def output(self) -> str:
        """Whole characters of the answer."""
        return self._text[self._lead :]

    @property
    def output_ids(self) -> list[int]:
        return self.ids[self.prompt_tokens :]

    def text_of(self, first: int) -> str:
        """The output's text from this token on."""
        before = self._ends[: self.prompt_tokens - self._head + first]
        return self._text[max((end for end in before if end != INSIDE), default=self._lead) :]

    # --- writing -----------------------------------------------------------------------------------------------

    def look(self, top: int = 1) -> Look:
        """The likeliest next token, with the `top` highest probabilities. Raises AllowanceSpent."""
        logits = self.logits()
        token = int(logits.argmax())
        highest = logits[token : token + 1] if top <= 1 else np.sort(np.partition(logits, -top)[-top:])[::-1]
        shares = np.exp(highest - logits[token]) / np.exp(logits - logits[token]).sum()
        ends = token in self.eos_ids
        text = "" if ends else self.tokens.piece(self.ids, token)[0]
        return Look(token, text, ends, tuple(float(share) for share in shares))

    def take(self, token: int, *, written: bool = True) -> str:
        """Appends a token; the text that it completes. written: by this model, else it is read like any other."""
        if written:
            self.meter.write()
        piece, inside = self.tokens.piece(self.ids, token)
        self._text += piece
        self.ids.append(token)
        self._ends.append(INSIDE if inside else len(self._text))
        self._unpaid.append(not written)
        self._logits = None
        return piece

    def propose(self, most: int) -> tuple[str, bool]:
        """Writes at most so many tokens; their text, and whether the answer ends with them.

        Where the text goes on as it proposed before, it need not write that again.
        """
        before, start = len(self.output), len(self.ids)
        for _ in range(most):
            known = self._foreseen()
            look = Look(known, "", known in self.eos_ids, ()) if known is not None else self.look()
            if known is None and look.ends:
                self.meter.write()
            if look.ends:
                self._plan = start, [*self.ids, look.token]
                return self.output[before:], True
            self.take(look.token, written=known is None)
            if known is not None:
                self._unpaid[-1] = len(self.ids) <= len(self.reader)
        self._plan = start, list(self.ids)
        return self.output[before:], False

    def _foreseen(self) -> int | None:
        """The next token, where it is in the latest proposal."""
        start, ids = self._plan
        here = len(self.ids)
        return ids[here] if start <= here < len(ids) and ids[:here] == self.ids else None

    # --- following ---------------------------------------------------------------------------------------------

    def sync(self, output: str) -> None:
        """Makes the output this text. Keeps the tokens that still hold; reads nothing yet."""
        text = self._text[: self._lead] + output
        if text == self._text and (not self._ends or self._ends[-1] != INSIDE):
            return
        wanted = self.tokens.encode(text)
        kept, start = self._seam(wanted.ends, len(commonprefix([self._text, text])))
        mine = self.ids[self._head :]
        if self.tokens.decode([*mine[:kept], *wanted.ids[start:]]) != self.tokens.decode(wanted.ids):
            kept = start = _common(mine, wanted.ids)  # a tokenizer whose pieces cannot be joined
        self._keep(kept)
        self._text = text
        self.ids.extend(wanted.ids[start:])
        self._ends.extend(wanted.ends[start:])
        self._unpaid.extend([True] * (len(wanted.ids) - start))

    def follow(self, output_ids: Sequence[int]) -> None:
        """Makes the output these tokens, for sides of one tokenizer; reads nothing yet."""
        kept = _common(self.output_ids, output_ids)
        if kept < len(self.output_ids):
            self.keep(kept)
        for token in output_ids[kept:]:
            self.take(token, written=False)

    def keep(self, output_tokens: int) -> None:
        """Takes the output back to so many of its tokens."""
        count = self.prompt_tokens - self._head + output_tokens
        self._keep(count)
        self._text = self._text[: max((end for end in self._ends if end != INSIDE), default=self._lead)]

    def _keep(self, count: int) -> None:
        """Forgets all ids behind the head but the first `count`; the caller sets the text."""
        whole = max((end for end in self._ends[:count] if end != INSIDE), default=0)
        self._done = _Read(min(self._done.ids, self._head + count), min(self._done.chars, whole))
        del self.ids[self._head + count :], self._ends[count:], self._unpaid[self._head + count :]
        self._logits = None

    def _seam(self, ends: Sequence[int], common: int) -> tuple[int, int]:
        """Where both tokenisations have a token end at one character, the last in the common text.

        How many of its own ids stand before it, and of the new ones.
        """
        mine = {end: place + 1 for place, end in enumerate(self._ends) if 0 <= end <= common}
        shared = [(mine[end], place + 1) for place, end in enumerate(ends) if end in mine]
        return shared[-1] if shared else (0, 0)

    # --- reading -----------------------------------------------------------------------------------------------

    def logits(self) -> np.ndarray:
        """After the text, float32 [vocabulary]; reads what was not read yet. Raises AllowanceSpent."""
        if self._logits is None:
            first = self._affordable(1)
            if len(self.reader) == first:
                self._logits = self.reader.step(self.ids[first:])
            else:
                first = self.reader.sync_ids(self.ids).reused
                self._logits = self.reader.logits
            self._pay(first)
        return self._logits

    def rows(self, last: int) -> np.ndarray:
        """Logits after each of the last `last` tokens, float32 [last, vocabulary], by one pass."""
        first = self._affordable(last)
        rows = self.reader.sync_rows(self.ids, last)
        self._logits = rows[-1]
        self._pay(first)
        return rows

    def _affordable(self, least: int) -> int:
        """The first token that is to be read, where at least so many of the last ones are."""
        if len(self.ids) > self.window_tokens:
            raise AllowanceSpent(f"its window of {self.window_tokens:,} tokens is full")
        first = min(self._done.ids, len(self.ids) - least)
        if first < min(len(self.reader), self.reader.whole_from):
            first = 0
        self.meter.may_read(sum(self._unpaid[first:]))
        return first

    def _pay(self, first: int) -> None:
        """Books the ids from `first` on, which were read now."""
        self.meter.passes += 1
        self.meter.tokens_in += sum(self._unpaid[first:])
        if self._done.chars:
            ends = [0, *self._ends][max(0, first - self._head) :]
            self.meter.reread += sum(before < end <= self._done.chars for before, end in pairwise(ends))
        self._unpaid[first:] = [True] * (len(self.ids) - first)  # from now on, reading it is reading it again
        self._done = _Read(len(self.ids), len(self._text))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass(frozen=True)
class Sides:
    """Who writes, who helps, and whose logits are needed besides."""

    writer: Side
    helper: Side
    others: tuple[Side, ...] = ()

    def __iter__(self) -> Iterator[Side]:
        return iter((self.writer, self.helper, *self.others))
