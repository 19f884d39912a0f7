"""Track: KV heads that keep the same tokens, and where those are stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.runs import Array, Runs

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_FILL = 0.5  # of the pages' room; below it the tokens are moved together


@dataclass(frozen=True)
class Remainder:
    """The sums of what left the reach: float64 [members, dims] of keys, rotated where they stood, and of values."""

    keys: Tensor
    values: Tensor
    count: int


@dataclass(frozen=True)
class Place:
    """Where new tokens go: int64 [tokens] each, the slot and the offset in its page."""

    slots: Array
    offsets: Array


class Track:
    """The stored tokens of some (layer, KV head) pairs of one context, the same tokens for all of them.

    label: which kind of heads the policy says they are. members: (layer, head) pairs, sorted; row i of `pages` is
    member i's. Columns of `pages` are slots; -1 is a slot that is not used.
    """

    def __init__(self, pool: PagePool, label: int, members: Sequence[tuple[int, int]]) -> None:
        self.pool = pool
        self.label = label
        self.members = tuple(members)
        layers = np.array([layer for layer, _ in members])
        self.rows = {
            int(layer): slice(int(np.searchsorted(layers, layer)), int(np.searchsorted(layers, layer, side="right")))
            for layer in np.unique(layers)
        }
        self.heads = np.array([head for _, head in members])
        self.runs = Runs.empty()
        self.pages = np.full((len(members), 0), -1, np.int32)
        self.tail = 0  # the offset that the next token gets in the last slot; page_tokens where it is full
        self.scores: np.ndarray | None = None  # float32 [members, tokens], what policies have observed
        self.remainder: Remainder | None = None  # what left the reach, where a policy compensates for it

    @property
    def tokens(self) -> int:
        return self.runs.tokens

    @property
    def used_bytes(self) -> int:
        return int((self.pages >= 0).sum()) * self.pool.page_bytes

    # --- growing -----------------------------------------------------------------------------------------------

    def slots_needed(self, tokens: int) -> int:
        """New slots that `tokens` more would take."""
        room = self.pool.page_tokens - self.tail if self.pages.shape[1] else 0
        return -(-max(0, tokens - room) // self.pool.page_tokens)

    def extend(self, position: int, tokens: int, origin: int) -> Place:
        """Room for tokens that stand at `position` and behind it. Raises MemoryInsufficient and changes nothing."""
        page = self.pool.page_tokens
        new = self.slots_needed(tokens)
        fresh = self.pool.take(new * len(self.members)).reshape(len(self.members), new)
        if not self.pages.shape[1]:
            self.tail = page
        last = self.pages.shape[1] - 1
        self._own(last)
        self.pages = np.concatenate([self.pages, fresh], axis=1) if new else self.pages
        at = (last * page if last >= 0 else -page) + self.tail + np.arange(tokens)
        slots, offsets = at // page, at % page
        self.runs = self.runs.then(_new_runs(slots, offsets, position, origin))
        self.tail = int(offsets[-1]) + 1
        if self.scores is not None:
            self.scores = np.pad(self.scores, ((0, 0), (0, tokens)))
        return Place(slots, offsets)

    def pages_to_own(self) -> int:
        """Pages that the next token's being written takes because the last slot is shared with a fork."""
        if not self.pages.shape[1] or self.tail == self.pool.page_tokens:
            return 0
        return len(self.members) if self.pool.shared(self.pages[:, -1]).any() else 0

    def _own(self, slot: int) -> None:
        """Makes the last slot's pages this track's alone, before it writes to them."""
        if not self.pages_to_own():
            return
        mine = self.pool.take(len(self.members))
        self.pool.copy(self.pages[:, slot], mine)
        self.pool.release(self.pages[:, slot])
        self.pages = self.pages.copy()
        self.pages[:, slot] = mine

    def read(self, rows: slice, runs: Runs) -> tuple[Tensor, Tensor]:
        """Keys, as they are stored, and values of some tokens, [rows, tokens, dims] each."""
        slots, offsets = runs.token_places()
        return self.pool.vectors(self.pages[rows][:, slots], offsets)

    # --- shrinking ---------------------------------------------------------------------------------------------

    def keep(self, runs: Runs, tokens: Array | None = None) -> None:
        """Forgets all tokens but those of `runs`, a part of this track's. tokens: bool, the same part, for scores."""
        if self.scores is not None:
            kept = np.isin(self.runs.token_positions(), runs.token_positions()) if tokens is None else tokens
            self.scores = self.scores[:, kept]
        self.runs = runs
        self._release_unused()

    def keep_tokens(self, tokens: Array) -> None:
        """Forgets all tokens but some: bool [tokens]. Moves the rest together where pages became too empty."""
        self.keep(self.runs.pick(tokens), tokens)
        slots = len(np.unique(self.runs.slot))
        if slots and self.runs.tokens < _LEAST_FILL * slots * self.pool.page_tokens:
            with suppress(MemoryInsufficient):  # no room to move them to: they stay where they are
                self.compact()

    def compact(self) -> None:
        """Moves all tokens together, in their order, and gives back the pages that this frees."""
        page, count = self.pool.page_tokens, self.runs.tokens
        slots, offsets = self.runs.token_places()
        fresh = self.pool.take(-(-count // page) * len(self.members)).reshape(len(self.members), -1)
        to = np.arange(count)
        self.pool.put(fresh[:, to // page], to % page, self.pool.read(self.pages[:, slots], offsets))
        self._release(self.pages[self.pages >= 0])
        self.runs = _moved_together(self.runs, page)
        self.pages = fresh
        self.tail = (count - 1) % page + 1 if count else page

    def _release_unused(self) -> None:
        used = np.zeros(self.pages.shape[1], bool)
        used[self.runs.slot] = True
        if len(used):
            used[-1] |= self.tail < self.pool.page_tokens and bool(len(self.runs))  # the tail goes on being filled
        gone = ~used & (self.pages[0] >= 0) if len(self.members) else ~used
        if gone.any():
            self._release(self.pages[:, gone])
            self.pages = self.pages.copy()
            self.pages[:, gone] = -1
        self._drop_dead_slots()

    def _drop_dead_slots(self) -> None:
        """Renumbers slots once half of them are dead, so that a window that moves on forever has a short table."""
        alive = self.pages[0] >= 0
        if alive.sum() * 2 > len(alive) and len(alive):
            return
        number = np.cumsum(alive) - 1
        self.pages = self.pages[:, alive]
        self.runs = Runs(number[self.runs.slot], *self.runs.columns[1:]) if len(self.runs) else Runs.empty()
        if not self.pages.shape[1]:
            self.tail = 0

    def _release(self, pages: Array) -> None:
        self.pool.release(pages.ravel())

    def close(self) -> None:
        """Gives every page back."""
        self._release(self.pages[self.pages >= 0])
        self.pages = self.pages[:, :0]
        self.runs, self.tail, self.scores, self.remainder = Runs.empty(), 0, None, None

    # --- going back, going apart -------------------------------------------------------------------------------

    def crop(self, position: int) -> None:
        """Forgets the tokens that stand at `position` or behind it."""
        kept = self.runs.before(position)
        if kept.tokens == self.runs.tokens:
            return
        if not len(kept):
            self.close()
            return
        last = int(kept.slot.max())
        gone = self.pages[:, last + 1 :]
        tokens = self.runs.token_positions() < position
        self._release(gone[gone >= 0])
        self.pages = self.pages[:, : last + 1]
        self.tail = int((kept.first + kept.count)[kept.slot == last].max())
        self.keep(kept, tokens)

    def fork(self) -> Track:
        """The same tokens for another context; pages are shared until one of the two writes to them."""
        other = Track(self.pool, self.label, self.members)
        self.pool.share(self.pages[self.pages >= 0])
        other.pages, other.runs, other.tail = self.pages.copy(), self.runs, self.tail
        other.scores = None if self.scores is None else self.scores.copy()
        other.remainder = self.remainder
        return other


def _new_runs(slots: Array, offsets: Array, position: int, origin: int) -> Runs:
    heads = np.flatnonzero(np.diff(slots, prepend=-1))
    counts = np.diff(heads, append=len(slots))
    return Runs(slots[heads], offsets[heads], counts, position + heads, np.full(len(heads), origin, np.int64))


def _moved_together(runs: Runs, page: int) -> Runs:
    """The runs after their tokens were stored one after the other from slot 0, split where a page ends."""
    starts = np.cumsum(runs.count) - runs.count
    first_page, last_page = starts // page, (starts + runs.count - 1) // page
    pieces = last_page - first_page + 1
    of = np.repeat(np.arange(len(runs)), pieces)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = np.maximum(starts[of], (first_page[of] + nth) * page)
    end = np.minimum((starts + runs.count)[of], (first_page[of] + nth + 1) * page)
    return Runs(begin // page, begin % page, end - begin, runs.position[of] + begin - starts[of], runs.origin[of])
