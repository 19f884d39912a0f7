"""auto: the policy for a text of known length on a model of known shape, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ctxkit.errors import MemoryInsufficient, PolicyError
from ctxkit.models.local.adapter import ModelShape
from ctxkit.models.local.paging.memory import kv_bytes
from ctxkit.models.local.policies.base import Policy, Reach
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.policies.streaming_llm import StreamingLLM

Task = Literal["chat", "lookup"]
"""What the text is for: to go on from where it is, or to find something that may stand anywhere in it."""

_LEAST = Reach(sinks=4, recent=60)
"""A smaller window is no use: better no answer than one from a few words."""


@dataclass(frozen=True)
class Choice:
    """What `auto` picked. reason: one sentence."""

    policy: Policy
    reason: str


@dataclass(frozen=True)
class Ask:
    """What has to be held. memory_bytes: for keys and values; None for no limit."""

    shape: ModelShape
    window_tokens: int
    prompt_tokens: int
    answer_tokens: int
    memory_bytes: int | None = None
    kv_dtype: torch.dtype | None = None
    pass_tokens: int = 512
    task: Task | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens

    def bytes_of(self, reach: Reach | None = None) -> int:
        return kv_bytes(self.shape, self.tokens, dtype=self.kv_dtype, reach=reach, pass_tokens=self.pass_tokens)

    def fits(self, reach: Reach | None = None) -> bool:
        return self.memory_bytes is None or self.bytes_of(reach) <= self.memory_bytes


def auto(
    shape: ModelShape,
    *,
    window_tokens: int,
    prompt_tokens: int,
    answer_tokens: int,
    memory_bytes: int | None = None,
    kv_dtype: torch.dtype | None = None,
    pass_tokens: int = 512,
    task: Task | None = None,
) -> Choice:
    """Full attention while the model's window and the memory hold it, else the first of `RULES` that can.

    shape: `Engine.shape`. window_tokens: what the model was trained on. kv_dtype: as the engine stores keys and values;
    as the model computes them by default. pass_tokens: the engine's `prefill_tokens`. Raises MemoryInsufficient where
    no useful window fits, PolicyError where the text is longer than the window and the model's tokens can only be seen
    from where they stand.
    """
    if min(window_tokens, prompt_tokens + answer_tokens) < 1 or min(prompt_tokens, answer_tokens) < 0:
        raise ValueError(
            f"there must be a window and tokens, got {window_tokens!r}, {prompt_tokens!r} and {answer_tokens!r}"
        )
    ask = Ask(shape, window_tokens, prompt_tokens, answer_tokens, memory_bytes, kv_dtype, pass_tokens, task)
    return next(choice for rule in RULES if (choice := rule(ask)) is not None)


def full_attention(ask: Ask) -> Choice | None:
    """Where the window and the memory hold everything."""
    if ask.tokens > ask.window_tokens or not ask.fits():
        return None
    fits = f"{ask.tokens:,} tokens fit the window of {ask.window_tokens:,}, in {ask.bytes_of():,} bytes"
    return Choice(Full(), f"full attention: {fits}")


def streaming(ask: Ask) -> Choice:
    """The last rule: four sinks, and as wide a window as the model was trained on and the memory holds."""
    why = _too_much(ask)
    if not ask.shape.turnable:
        raise PolicyError(f"{why}, and this model's tokens can only be seen from where they stand; shorten the prompt")
    recent = _most_recent(ask)
    if recent is None:
        least = ask.bytes_of(_LEAST)
        raise MemoryInsufficient(
            f"{why}, and even a window of {_LEAST.recent} needs {least:,}; allow more memory",
            needed_bytes=least,
            allowed_bytes=ask.memory_bytes or 0,
        )
    lost = f"; what stands before the last {recent:,} cannot be found again" if ask.task == "lookup" else ""
    reason = f"StreamingLLM: {why}; the first {_LEAST.sinks} and the last {recent:,} are seen{lost}"
    return Choice(StreamingLLM(_LEAST.sinks, recent), reason)


RULES: tuple[Callable[[Ask], Choice | None], ...] = (full_attention, streaming)
"""Asked in this order; the first that answers decides. A policy that selects stands before the last."""


def _too_much(ask: Ask) -> str:
    if ask.tokens > ask.window_tokens:
        return f"{ask.tokens:,} tokens are more than the window of {ask.window_tokens:,}"
    return f"{ask.tokens:,} tokens need {ask.bytes_of():,} bytes of the {ask.memory_bytes:,} allowed"


def _most_recent(ask: Ask) -> int | None:
    """The widest window that fits, by bisection; None where the least one does not."""
    low, high = _LEAST.recent, max(_LEAST.recent, min(ask.window_tokens, ask.tokens) - _LEAST.sinks)
    if not ask.fits(_LEAST):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if ask.fits(Reach(_LEAST.sinks, middle)) else (low, middle - 1)
    return low
