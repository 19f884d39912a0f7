"""Every policy, small enough to bite within 200 tokens of the tiny model (2 layers, 4 heads, 2 KV heads).

A new policy joins by a line in `CASES`. Where a rule can be written down from its paper, `expected` does so, and the
paged store must agree with it; where what is seen depends on the data, the views that the policy made are noted, and
what the kernels made of them must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ctxkit.models.local.policies import (
    ACT,
    InfLLM,
    LMInfinite,
    LogN,
    Policy,
    RazorAttention,
    StreamingLLM,
    TokenSelect,
    ZeroTuning,
)
from ctxkit.models.local.profile import HeadProfile
from tests.models.policies.dense import Seen, distances

LAYERS, HEADS, KV_HEADS = 2, 4, 2

Expected = Callable[[int, Sequence[int]], Callable[[int], Seen]]
"""(tokens, where passes begin) -> layer -> Seen."""


@dataclass(frozen=True)
class Case:
    policy: Policy
    expected: Expected | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or type(self.policy).__name__


def _window(tokens: int, sinks: int, recent: int) -> Tensor:
    """bool [tokens, tokens]."""
    far = distances(tokens)
    return (far >= 0) & ((far < recent) | (torch.arange(tokens) < sinks))


def full(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
    return lambda layer: Seen(distances(tokens) >= 0)


def packed_sinks(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
    """4 sinks and 40 recent tokens; behind the first 44 queries all stand as if the 45th were asking."""
    places = torch.arange(tokens)
    packed = torch.where(places < 4, places.clamp_max(43)[:, None] - places, distances(tokens))
    return lambda layer: Seen(_window(tokens, 4, 40), packed)


def _ceiling(limit: int) -> Expected:
    def expected(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
        far = distances(tokens)
        return lambda layer: Seen(
            _window(tokens, 5, 30), torch.where(torch.arange(tokens) < 5, far.clamp_max(limit), far)
        )

    return expected


def _first_token(gamma: float, heads: tuple[tuple[bool, ...], ...]) -> Expected:
    def expected(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
        def seen(layer: int) -> Seen:
            bias = torch.zeros(HEADS, tokens, tokens, dtype=torch.float64)
            bias[torch.tensor(heads[layer]), :, 0] = np.log(gamma)
            return Seen(distances(tokens) >= 0, bias=bias)

        return seen

    return expected


def sharpened(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
    """LogN of 30 trained tokens from layer 1 on."""
    scale = torch.tensor([max(1.0, np.log(n) / np.log(30)) for n in range(1, tokens + 1)], dtype=torch.float64)
    return lambda layer: Seen(distances(tokens) >= 0, scale=scale if layer >= 1 else None)


def _retrieval(*, rest: bool) -> Expected:
    """KV head 1 of layer 1 sees everything; the others 3 sinks, 20 recent tokens, and maybe the rest as one."""

    def expected(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
        def seen(layer: int) -> Seen:
            streams = torch.tensor([True, layer != 1])
            visible = torch.where(streams[:, None, None], _window(tokens, 3, 20), distances(tokens) >= 0)
            return Seen(visible, rest=streams if rest else None)

        return seen

    return expected


def calibrated(tokens: int, starts: Sequence[int]) -> Callable[[int], Seen]:
    """ACT of layer 1's KV head 0: sinks by the mean of what the passes before gave, times 0.3."""

    def reweigh(weights: Tensor) -> Tensor:
        shared = weights.view(KV_HEADS, -1, tokens, tokens).mean(1)  # [KV heads, T, T]
        new = weights.clone()
        for start, end in zip(starts, [*starts[1:], tokens], strict=True):
            queries = (start - torch.arange(tokens)).clamp_min(1)  # that stood behind or at each token before this pass
            sinks = shared[0, :start].sum(0) / queries > 0.05
            sinks[0] = False
            for head in range(HEADS // KV_HEADS):
                rows = weights[head, start:end]
                mass = rows[:, sinks].sum(-1, keepdim=True)
                new[head, start:end] = torch.where(sinks, 0.3 * rows, rows * (1 - 0.3 * mass) / (1 - mass))
        return new

    return lambda layer: Seen(distances(tokens) >= 0, reweigh=reweigh if layer == 1 else None)


def _profile() -> HeadProfile:
    """Of a model whose last query head alone retrieves."""
    induction = np.zeros((LAYERS, HEADS), np.float32)
    induction[1, 3] = 0.9
    return HeadProfile(echo=induction, induction=induction, sink=np.zeros_like(induction), tokens=100)


_RAZOR = RazorAttention(_profile(), induction_share=0.1, sinks=3, recent=20)
_TUNED = ((True, False, False, True), (False, False, True, False))

CASES = [
    Case(Policy(), full),
    Case(StreamingLLM(sinks=4, recent=40), packed_sinks),
    Case(StreamingLLM(sinks=4, recent=40), name="StreamingLLM, noted"),
    Case(LMInfinite(sinks=5, recent=30), _ceiling(30)),
    Case(LMInfinite(sinks=5, recent=30, limit=18), _ceiling(18), name="LMInfinite, near"),
    Case(ZeroTuning(0.3, heads=_TUNED), _first_token(0.3, _TUNED)),
    Case(LogN(trained_tokens=30, first_layer=1), sharpened),
    Case(_RAZOR, _retrieval(rest=True)),
    Case(replace(_RAZOR, compensates=False), _retrieval(rest=False), name="RazorAttention, without the rest"),
    Case(ACT(beta=0.3, threshold=0.05, heads=frozenset({(1, 0)})), calibrated),
    Case(TokenSelect(keep_tokens=12, sinks=4, recent=20, reuse_cosine=None)),
    Case(InfLLM(blocks=2, block_tokens=8, representatives=2, sinks=4, recent=20)),
    Case(StreamingLLM(sinks=4, recent=40) | ZeroTuning(0.3) | LogN(30), name="StreamingLLM | ZeroTuning | LogN"),
]
