"""KVContext: the keys and values of one text, and what a policy has noted about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.adapter import ModelShape
from ctxkit.models.local.paging.compensation import absorbed
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.track import Place, Track
from ctxkit.models.local.policies.base import (
    SLIDING,
    Kept,
    Moment,
    Policy,
    Reach,
    Span,
    copied_states,
    labels_by_scope,
    overrides,
    state_of,
)

FRAME_TOKENS = 4096
"""Keys are rotated by their position within a frame of this many tokens, so that no angle grows with the text."""


class KVContext:
    """What one text has left in memory. `ids` are all its tokens; what is stored of them is the policy's choice.

    Not for several threads at once.
    """

    slack_tokens = 64
    """Tokens out of reach that wait, so that a few can be taken back and not every token drops one."""

    def __init__(self, shape: ModelShape, policy: Policy, pool: PagePool) -> None:
        self.shape = shape
        self.policy = policy
        self.pool = pool
        self.ids: list[int] = []
        self.spans: tuple[Span, ...] = ()
        self.turns: list[int] = []  # lengths of the text at which turns ended
        self.surprisal = np.zeros(0, np.float32)
        self.states: dict[Any, dict[str, Any]] = {}
        self._next: Tensor | None = None  # logits after the last token, for its successor's surprisal
        self.bytes_touched = 0  # what all passes have read: keys and values seen, and what selections looked at
        self.exact_from = 0  # cropping to fewer tokens than this would leave out what was seen then
        self.tracks = [Track(pool, label, members) for label, members in _partition(shape, policy)]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kept = max((track.tokens for track in self.tracks), default=0)
        return f"KVContext({len(self):,} tokens, at most {kept:,} kept per head, {self.used_bytes:,} bytes)"

    @property
    def used_bytes(self) -> int:
        return sum(track.used_bytes for track in self.tracks)

    def reach(self, track: Track) -> Reach | None:
        """What the track's heads see by position alone."""
        if track.label == SLIDING:
            return Reach(0, self.shape.layers[track.members[0][0]].sliding or 1)
        return self.policy.reach(track.label)

    def most_kept(self, track: Track) -> int | None:
        """The most tokens that the track holds after any pass; None where that grows with the text."""
        reach = self.reach(track)
        if reach is not None and (track.label == SLIDING or not self.policy.keeps_all):
            return reach.sinks + reach.recent + self.slack_tokens
        return None if track.label == SLIDING else self.policy.most_kept

    def origin(self, position: int) -> int:
        """Where the frame of a position begins."""
        return position // FRAME_TOKENS * FRAME_TOKENS if self.shape.turnable else 0

    def passes(self, tokens: int) -> list[tuple[int, int]]:
        """Where the next tokens are split, as (start, end), so that no pass goes over a frame's end."""
        if not self.shape.turnable:
            return [(0, tokens)]
        cuts = [*range(FRAME_TOKENS - len(self) % FRAME_TOKENS, tokens, FRAME_TOKENS), tokens]
        return list(zip([0, *cuts[:-1]], cuts, strict=True))

    def pages_needed(self, tokens: int) -> int:
        """New pages that `tokens` more would take before anything is dropped."""
        return sum(track.slots_needed(tokens) * len(track.members) for track in self.tracks)

    # --- growing -----------------------------------------------------------------------------------------------

    def extend(self, tokens: int) -> list[Place]:
        """Room for the next tokens, per track. Raises MemoryInsufficient and changes nothing."""
        self.pool.ensure(self.pages_needed(tokens) + sum(track.pages_to_own() for track in self.tracks))
        start = len(self)
        return [track.extend(start, tokens, self.origin(start)) for track in self.tracks]

    def take_back(self) -> None:
        """Forgets what `extend` made room for, after a pass that failed."""
        for track in self.tracks:
            track.crop(len(self))

    def commit(self, ids: Sequence[int]) -> None:
        """The pass over `ids` went well."""
        self.ids.extend(ids)
        missing = len(self.ids) - len(self.surprisal)
        self.surprisal = np.concatenate([self.surprisal, np.zeros(max(missing, 0), np.float32)])
        if "attention" in self.policy.needs:
            self.exact_from = len(self)  # what these queries added to the scores is not taken off again

    def note_surprisal(self, ids: Sequence[int], logits: Tensor) -> None:
        """What the last ids cost, given logits after each of them, float32 [ids, vocabulary].

        The first of all tokens, and the first after a crop, count as much as the dearest before them and of this pass.
        """
        before = logits[:-1] if self._next is None else torch.cat([self._next[None], logits[:-1]])
        own = torch.tensor(list(ids)[len(ids) - len(before) :], device=logits.device)
        rows = -before.log_softmax(-1).gather(-1, own.clamp_min(0)[:, None])[:, 0]
        cost = rows.masked_fill(own < 0, 0).cpu().numpy()  # an input embedding is nobody's successor
        first = len(self) - len(cost)
        self.surprisal[first:] = cost
        if self._next is None:
            self.surprisal[first - 1] = cost.max(initial=self.surprisal[: first - 1].max(initial=0))
        self._next = logits[-1]

    # --- dropping ----------------------------------------------------------------------------------------------

    def settle(self, moment: Moment) -> None:
        """Drops what the policy does not keep at this moment."""
        for track in self.tracks:
            if moment == "step" or track.label == SLIDING:
                self._drop_out_of_reach(track)
            if track.label != SLIDING and overrides(self.policy, "retain"):
                self._retain(track, moment)
        if moment == "turn":
            self.turns.append(len(self))

    def _drop_out_of_reach(self, track: Track) -> None:
        reach = self.reach(track)
        if reach is None or (self.policy.keeps_all and track.label != SLIDING):
            return
        cut = len(self) - reach.recent + 1  # the next query, at len(self), sees from here on
        stale = track.runs.since(reach.sinks)
        if len(stale) and cut - int(stale.position[0]) >= self.slack_tokens:
            if self.policy.compensates and track.label != SLIDING:
                track.remainder = absorbed(self.shape, track, stale.before(cut))
            track.keep(track.runs.outside(reach.sinks, cut))
            self.exact_from = max(self.exact_from, cut + reach.recent - 1)

    def _retain(self, track: Track, moment: Moment) -> None:
        kept = Kept(
            label=track.label,
            positions=track.runs.token_positions(),
            length=len(self),
            moment=moment,
            scores=None if track.scores is None else track.scores.max(0),
            surprisal=self.surprisal,
            spans=self.spans,
            turns=np.array(self.turns, np.int64),
            state=state_of(state_of(self.states, (self.policy, track.label)), "retain"),
        )
        kept.surprisal = self.surprisal[kept.positions]
        mask = self.policy.retain(kept)
        if mask is not None and not mask.all():
            track.keep_tokens(mask)
            self.exact_from = len(self)

    # --- going back, going apart -------------------------------------------------------------------------------

    def crop(self, tokens: int) -> bool:
        """Back to the first `tokens` ids. False, and nothing changed, where what was seen then is gone."""
        if tokens >= len(self):
            return True
        if tokens < self.exact_from:
            return False
        for track in self.tracks:
            track.crop(tokens)
        del self.ids[tokens:]
        self.turns = [length for length in self.turns if length <= tokens]
        self.surprisal, self._next = self.surprisal[:tokens], None
        self.states.clear()  # what was remembered of later queries
        return True

    def fork(self) -> KVContext:
        """The same text twice; memory is shared until the two differ."""
        other = KVContext(self.shape, self.policy, self.pool)
        other.tracks = [track.fork() for track in self.tracks]
        other.ids, other.spans, other.surprisal = list(self.ids), self.spans, self.surprisal.copy()
        other.turns, other._next = list(self.turns), self._next
        other.states, other.exact_from = copied_states(self.states), self.exact_from
        return other

    def close(self) -> None:
        """Gives all memory back; the context is empty then."""
        for track in self.tracks:
            track.close()
        self.ids, self.spans, self.turns, self.surprisal = [], (), [], np.zeros(0, np.float32)
        self.states, self.exact_from, self._next = {}, 0, None


def _partition(shape: ModelShape, policy: Policy) -> list[tuple[int, list[tuple[int, int]]]]:
    """(label, members) of each track: heads of one label, but layers that slide by themselves apart."""
    plan = policy.plan(shape)
    labels = labels_by_scope(policy, len(shape.layers), shape.kv_heads) if plan is None else plan.copy()
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for layer, of in enumerate(shape.layers):
        for head in range(shape.kv_heads):
            key = (SLIDING, of.sliding) if of.sliding is not None else (int(labels[layer, head]), 0)
            found.setdefault(key, []).append((layer, head))
    return [(label, members) for (label, _), members in found.items()]
