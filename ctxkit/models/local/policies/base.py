"""Policy: how a context's keys and values are kept, seen, placed and weighed. Six hooks that do nothing by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ctxkit.models.local.paging.runs import Array, Runs

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.adapter import ModelShape
    from ctxkit.models.local.paging.look import Look

FAR = 1 << 60
"""A reach, or a held position, that no text comes to."""

SLIDING = -1
"""The label of heads whose layer slides by itself; no policy sees them."""

Moment = Literal["step", "prompt", "turn"]
"""When tokens may leave memory: after any forward pass, after a prompt was read, when a turn ends."""


@dataclass(frozen=True)
class Reach:
    """What every query sees without being asked: the first `sinks` tokens, and the `recent` last, its own included."""

    sinks: int
    recent: int


@dataclass(frozen=True)
class View:
    """What some rows see, run by run.

    reach: int64 [runs], a query sees a run's token while its distance is below this.
    gap: int64 [runs], by how many positions nearer than they stand the tokens are seen.
    hold: int64 [runs], a query behind this position sees the tokens as if it stood at it.
    """

    runs: Runs
    reach: Array
    gap: Array
    hold: Array

    @classmethod
    def of(cls, runs: Runs, reach: int = FAR) -> View:
        full = np.full(len(runs), FAR, np.int64)
        return cls(runs, np.full(len(runs), min(reach, FAR), np.int64), np.zeros(len(runs), np.int64), full)

    def at(self, index: Array) -> View:
        """Some of the runs."""
        return View(self.runs.at(index), self.reach[index], self.gap[index], self.hold[index])

    def single(self) -> View:
        """The same tokens, each a run of its own."""
        reach, gap, hold = (np.repeat(column, self.runs.count) for column in (self.reach, self.gap, self.hold))
        return View(self.runs.single(), reach, gap, hold)

    def then(self, more: View) -> View:
        """Both, in the order of the text."""
        columns = [np.concatenate(pair) for pair in zip(self.runs.columns, more.runs.columns, strict=True)]
        order = np.argsort(columns[3], kind="stable")
        own = ((self.reach, more.reach), (self.gap, more.gap), (self.hold, more.hold))
        reach, gap, hold = (np.concatenate(pair)[order] for pair in own)
        return View(Runs(*columns).at(order), reach, gap, hold)

    def apart(self, tokens: int) -> View:
        """The text's first `tokens` in runs of their own."""
        early = self.runs.position < tokens
        single = self.at(early).single()
        seam = self.at(early & (self.runs.position + self.runs.count > tokens))
        behind = replace(seam, runs=seam.runs.since(tokens))
        return single.at(single.runs.position < tokens).then(behind).then(self.at(~early))

    def clamped(self, which: Array, distance: int) -> View:
        """Every token of the chosen runs (bool [runs]) seen at `distance` at the farthest."""
        near = self.at(which).single()
        return replace(near, hold=np.minimum(near.hold, near.runs.position + distance)).then(self.at(~which))

    def held(self, which: Array, at: int) -> View:
        """The chosen runs (bool [runs]) seen from position `at` at the farthest."""
        return replace(self, hold=np.where(which, np.minimum(self.hold, at), self.hold))

    def packed(self, first_query: int) -> View:
        """Seen as if the tokens before `first_query` followed each other without holes, up to it."""
        behind = np.cumsum(self.runs.count[::-1])[::-1]  # tokens from this run's first on
        before = self.runs.position < first_query
        after = int(self.runs.since(first_query).count.sum())  # a run may go on behind the first query
        return replace(self, gap=np.where(before, first_query - self.runs.position - behind + after, 0))


@dataclass
class Kept:
    """What a retention decides about: the stored tokens of one track, in the order of the text.

    label: which heads these are. positions: int64 [tokens]. length: tokens of the text so far. moment: why now.
    scores: float32 [tokens], what `observe` made of them, the largest of the track's heads; None before the first.
    surprisal: float32 [tokens], -log p of each; zeros unless the policy needs "surprisal".
    spans: the text's messages, where the session knows them. turns: int64, lengths of the text at which turns ended.
    """

    label: int
    positions: Array
    length: int
    moment: Moment
    scores: Array | None
    surprisal: Array
    spans: tuple[Span, ...]
    turns: Array
    state: dict[str, Any]


@dataclass(frozen=True)
class Span:
    """A message in the text: tokens start .. end - 1.

    pinned: never leaves. id: messages of one id leave together, a tool call and its result; "" is none. priority: the
    lower leave first.
    """

    start: int
    end: int
    pinned: bool = False
    id: str = ""
    priority: int = 0


@dataclass
class Observed:
    """The attention of some queries in one layer of one track.

    probabilities: float32 [rows, heads in a group, queries, tokens]. logits: the same before the softmax.
    queries: int64 [queries], positions; of a pass over `pass_tokens` in all. positions: int64 [tokens].
    before: float32 [rows, tokens], the scores until now.
    """

    layer: int
    label: int
    probabilities: Tensor
    logits: Tensor
    queries: Array
    pass_tokens: int
    positions: Array
    before: Tensor
    state: dict[str, Any]


class Policy:
    """Everything is kept and seen where it stands: full attention. A published method overrides a few hooks.

    scope: which heads keep the same tokens: all ("model"), or each KV head its own ("kv_head").
    needs: the evidence it asks for, which costs: "surprisal" (of every token), "attention" (of every query), "prompt"
        (the attention of a prompt's last `window` queries).
    window: queries of the evidence "prompt".
    keeps_all: tokens out of reach stay in memory, because `select` may show them again.

    Policies compose: `StreamingLLM(4, 1020) | ZeroTuning(0.5)`.
    """

    scope: Literal["model", "kv_head"] = "model"
    needs: frozenset[str] = frozenset()
    window: int = 0
    keeps_all: bool = False
    places: bool = False  # `place` bounds every distance: a rotation must be understood, and no window ends the text
    apart: int = 0  # so many first tokens of the text get runs of their own, for `bias`
    compensates: bool = False  # what left the reach is seen as one token: the mean of its keys, and of its values

    # 1. head and layer plan
    def plan(self, shape: ModelShape) -> Array | None:
        """int64 [layers, KV heads], a label per head; heads of one label keep the same tokens. None: by `scope`."""
        return None

    # 2. retention
    def reach(self, label: int) -> Reach | None:
        """What heads of this label see by position alone; None: everything."""
        return None

    def retain(self, kept: Kept) -> Array | None:
        """bool [tokens], what stays in memory; None: all."""
        return None

    @property
    def most_kept(self) -> int | None:
        """The most tokens that `retain` leaves a head after any pass; None: it promises nothing."""
        return None

    # 3. representation
    def observe(self, seen: Observed) -> Tensor | None:
        """The scores after this attention, float32 [rows, tokens]; None: as before."""
        return None

    def represent(self, keys: Tensor, scores: Tensor) -> Tensor:
        """What whole blocks show to `select`: [rows, blocks, block tokens, dims] -> [rows, blocks, ...].

        keys: float32, as `Look.keys` gives them. scores: float32 [rows, blocks, block tokens], of `observe`.
        """
        return keys.mean(2)

    # 4. selection
    def select(self, look: Look) -> Tensor | None:
        """int64 [rows or 1, n], sorted numbers of candidates that are shown besides the reach, -1 for none.

        None: all of them.
        """
        return None

    # 5. position
    def place(self, view: View, first_query: int, label: int) -> View:
        """From where the runs are seen; the queries of a pass stand at `first_query` and behind it."""
        return view

    # 6. logit
    def bias(self, view: View, layer: int) -> Array | None:
        """float32 [heads in the layer or 1, runs], added to the logits of all tokens of a run."""
        return None

    def query_scale(self, positions: Array, layer: int) -> Array | None:
        """float32 [queries], by which queries are multiplied."""
        return None

    def regroup(self, layer: int, heads: Array, positions: Array, scores: Array) -> tuple[Array, float] | None:
        """Which tokens' probabilities are multiplied together, and by what; the other tokens' take what that frees.

        heads: int64 [rows], the KV heads. positions: int64 [rows, tokens], -1 for padding. scores: float32
        [rows, tokens], what `observe` made of the passes before. Returns (bool [rows, tokens], factor).
        """
        return None

    def __or__(self, other: Policy) -> Policy:
        from ctxkit.models.local.policies.composed import Composed

        return Composed((*_parts(self), *_parts(other)))


def _parts(policy: Policy) -> tuple[Policy, ...]:
    return getattr(policy, "parts", (policy,))


def labels_by_scope(policy: Policy, layers: int, kv_heads: int) -> Array:
    if policy.scope == "model":
        return np.zeros((layers, kv_heads), np.int64)
    return np.arange(layers * kv_heads).reshape(layers, kv_heads)


def overrides(policy: Policy, hook: str) -> bool:
    """Whether a policy, or a part of a composed one, does anything in a hook."""
    return any(getattr(type(part), hook) is not getattr(Policy, hook) for part in _parts(policy))


def state_of(states: dict[Any, dict[str, Any]], key: Any) -> dict[str, Any]:
    return states.setdefault(key, {})


def copied_states(states: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy that shares no dictionary, also none that a composed policy keeps for its parts."""
    return {key: copied_states(state) if isinstance(state, dict) else state for key, state in states.items()}
