"""auto: full attention while it fits, a stream beyond, and a sentence that says which limit decided."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ctxkit.errors import MemoryInsufficient, PolicyError
from ctxkit.models.local import Engine
from ctxkit.models.local.adapter import LayerShape, ModelShape
from ctxkit.models.local.auto import auto
from ctxkit.models.local.paging.memory import kv_bytes, needed_pages
from ctxkit.models.local.policies import Full, Policy, StreamingLLM
from ctxkit.models.local.policies.base import Reach
from ctxkit.testing import tiny_llama


def shape(sliding: int | None = None, *, turnable: bool = True) -> ModelShape:
    frequencies = torch.ones(8) if turnable else None
    layer = LayerShape(heads=4, kv_heads=2, dims=16, value_dims=16, sliding=sliding, frequencies=frequencies)
    return ModelShape((layer, dataclasses.replace(layer, sliding=None)), torch.float32, torch.device("cpu"))


def choose(tokens: int, memory_bytes: int | None = None, **more: Any) -> Any:
    asked = {"shape": shape(), "window_tokens": 1000, "prompt_tokens": tokens - 10, "answer_tokens": 10, **more}
    return auto(asked.pop("shape"), memory_bytes=memory_bytes, **asked)


def test_everything_is_seen_up_to_the_window() -> None:
    choice = choose(1000)
    assert type(choice.policy) is Full
    assert "1,000 tokens fit the window of 1,000" in choice.reason


def test_one_token_more_is_streamed_through_the_whole_window() -> None:
    choice = choose(1001)
    assert choice.policy == StreamingLLM(sinks=4, recent=996)
    assert "1,001 tokens are more than the window of 1,000" in choice.reason


def test_memory_decides_within_the_window() -> None:
    needed = kv_bytes(shape(), 900)
    assert type(choose(900, needed).policy) is Full
    choice = choose(900, needed - 1)
    assert isinstance(choice.policy, StreamingLLM)
    assert f"need {needed:,} bytes" in choice.reason


def test_the_window_is_as_wide_as_memory_allows() -> None:
    allowed = kv_bytes(shape(), 5000, reach=Reach(4, 300))
    assert 300 <= choose(5000, allowed).policy.recent < 300 + 16


def test_what_is_chosen_passes_the_engines_own_check() -> None:
    engine = Engine(tiny_llama(), max_kv_bytes=500_000)
    for tokens in (100, 700, 2000, 30_000):
        choice = choose(tokens, 500_000, shape=engine.shape, window_tokens=2048)
        engine.check(engine.new_context(choice.policy), tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("policy", "reach"), [(Full(), None), (StreamingLLM(4, 50), Reach(4, 50))])
def test_bytes_are_what_a_context_counts(dtype: torch.dtype, policy: Policy, reach: Reach | None) -> None:
    engine = Engine(tiny_llama(), kv_dtype=dtype)
    context = engine.new_context(policy)
    for tokens in (0, 1, 100, 5000):
        counted = needed_pages(context, tokens, 512) * engine.pool.page_bytes
        assert kv_bytes(engine.shape, tokens, dtype=dtype, reach=reach) == counted


def test_layers_that_slide_are_counted_by_their_window() -> None:
    assert kv_bytes(shape(sliding=32), 50_000) < 0.6 * kv_bytes(shape(), 50_000)
    assert type(choose(900, kv_bytes(shape(sliding=32), 900), shape=shape(sliding=32)).policy) is Full


def test_int8_holds_what_float32_does_not() -> None:
    allowed = kv_bytes(shape(), 3000, dtype=torch.int8)
    assert isinstance(choose(3000, allowed, window_tokens=4000).policy, StreamingLLM)
    assert type(choose(3000, allowed, window_tokens=4000, kv_dtype=torch.int8).policy) is Full


def test_shorter_passes_leave_more_memory_to_the_window() -> None:
    allowed = kv_bytes(shape(), 5000, reach=Reach(4, 300))
    assert choose(5000, allowed, pass_tokens=64).policy.recent > 700


def test_a_lookup_is_told_what_a_stream_loses() -> None:
    assert "cannot be found again" in choose(2000, task="lookup").reason
    assert "cannot be found again" not in choose(2000, task="chat").reason


def test_too_little_memory_for_any_window_is_refused() -> None:
    with pytest.raises(MemoryInsufficient, match="allow more memory") as caught:
        choose(900, 1000)
    assert caught.value.needed_bytes > 1000 == caught.value.allowed_bytes


def test_a_text_longer_than_the_window_of_a_model_that_cannot_be_turned_is_refused() -> None:
    with pytest.raises(PolicyError, match="shorten the prompt"):
        choose(2000, shape=shape(turnable=False))
    assert type(choose(1000, shape=shape(turnable=False)).policy) is Full


@pytest.mark.parametrize(
    "asked", [{"prompt_tokens": 0, "answer_tokens": 0}, {"prompt_tokens": -1}, {"window_tokens": 0}]
)
def test_no_tokens_and_no_window_are_mistakes(asked: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a window and tokens"):
        choose(100, **asked)
