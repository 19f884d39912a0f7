"""What every selection promises, on a small random Llama."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.policies.actqkv import ActQKV
from ctxkit.models.local.policies.base import Policy
from ctxkit.models.local.policies.infllm import InfLLM
from ctxkit.models.local.policies.quest import Quest
from ctxkit.models.local.policies.recycled import Recycled
from ctxkit.models.local.policies.selector import Selector, every, layers, similar
from ctxkit.models.local.policies.tidal_decode import TidalDecode
from ctxkit.models.local.policies.token_select import TokenSelect
from ctxkit.models.local.policies.two_stage import TwoStage
from tests.models.policies.selections import some_ids, tiny_engine

PROMPT, MORE = some_ids(75), some_ids(7, seed=1)

BY_TOKENS: dict[str, type[Selector]] = {
    "TokenSelect": TokenSelect,
    "Quest": Quest,
    "TidalDecode": TidalDecode,
    "Recycled": Recycled,
    "TwoStage": TwoStage,
}
SMALL: dict[str, Policy] = {
    "TokenSelect": TokenSelect(6, sinks=2, recent=8),
    "TokenSelect, packed": TokenSelect(6, sinks=2, recent=8, pool=3, packed=True),
    "Quest": Quest(16, page=4, dense_layers=1),
    "InfLLM": InfLLM(2, 8, 3, sinks=2, recent=16),
    "InfLLM by runs": InfLLM(2, 8, 3, sinks=2, recent=16, exact=False),
    "ActQKV": ActQKV(2, 8, 3, sinks=2, recent=16),
    "TidalDecode": TidalDecode(6, select_layers=(0,), pool=3),
    "Recycled": Recycled(6, every=3),
    "Recycled, by cosine": Recycled(6, cosine=-1.0),
    "TwoStage": TwoStage(6, sinks=2, recent=8, candidates=12, channels=4, block_tokens=8),
    "every": every(4, TokenSelect(6, sinks=2, recent=8)),
    "layers": layers((0,), Quest(16, page=4, dense_layers=0)),
    "composed": every(4, TokenSelect(6, sinks=2, recent=8)) | Policy(),
    "similar": similar(0.5, TwoStage(6, sinks=2, recent=8, candidates=12, channels=4, block_tokens=8)),
}
ONE_TOKEN = {**{name: kind(1) for name, kind in BY_TOKENS.items()}, "InfLLM": InfLLM(1, 1, 1, sinks=0, recent=1)}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine(prefill_tokens=64)


@pytest.fixture(params=list(SMALL))
def policy(request: pytest.FixtureRequest) -> Policy:
    return SMALL[request.param]


def _read(engine: Engine, policy: Policy | None, prompt: list[int], more: list[int]) -> Tensor:
    """Logits after the prompt and after each of `more`, one by one."""
    context = engine.new_context(policy)
    logits = [engine.prefill(prompt, context)]
    logits += [engine.step([context], [token])[0] for token in more]
    return torch.stack([one for one in logits if one is not None])


@pytest.mark.parametrize("name", list(BY_TOKENS))
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_budget_for_all_candidates_is_full_attention(engine: Engine, name: str, wrapped: bool) -> None:
    policy = BY_TOKENS[name](10_000)
    found = _read(engine, every(3, policy) if wrapped else policy, PROMPT, MORE)
    torch.testing.assert_close(found, _read(engine, None, PROMPT, MORE), rtol=1e-4, atol=1e-4)


def test_packed_tokens_without_holes_are_full_attention(engine: Engine) -> None:
    found = _read(engine, TokenSelect(10_000, sinks=0, recent=8, packed=True), PROMPT, MORE)
    torch.testing.assert_close(found, _read(engine, None, PROMPT, MORE), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [InfLLM, ActQKV])
def test_a_text_within_the_window_is_full_attention(engine: Engine, kind: type[InfLLM]) -> None:
    found = _read(engine, kind(1, 8, 2, sinks=2, recent=200), PROMPT, MORE)
    torch.testing.assert_close(found, _read(engine, None, PROMPT, MORE), rtol=1e-4, atol=1e-4)


def test_a_small_budget_is_not_full_attention(engine: Engine, policy: Policy) -> None:
    found, full = _read(engine, policy, PROMPT, MORE), _read(engine, None, PROMPT, MORE)
    assert not torch.allclose(found[-1], full[-1], rtol=1e-2, atol=1e-2)


def test_contexts_decoded_together_are_as_if_decoded_alone(engine: Engine, policy: Policy) -> None:
    prompts = [PROMPT, PROMPT[20:60], PROMPT[:3]]
    alone = [_read(engine, policy, prompt, MORE[:4])[1:] for prompt in prompts]
    contexts = [engine.new_context(policy) for _ in prompts]
    for context, prompt in zip(contexts, prompts, strict=True):
        engine.prefill(prompt, context)
    together = torch.stack([engine.step(contexts, [token] * 3) for token in MORE[:4]], dim=1)
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


def test_the_same_input_gives_the_same_output(engine: Engine, policy: Policy) -> None:
    assert torch.equal(_read(engine, policy, PROMPT, MORE), _read(engine, policy, PROMPT, MORE))


@pytest.mark.parametrize("prompt", [1, 17])
def test_short_prompts_are_read(engine: Engine, policy: Policy, prompt: int) -> None:
    assert _read(engine, policy, PROMPT[:prompt], MORE).isfinite().all()


@pytest.mark.parametrize("name", list(ONE_TOKEN))
def test_a_budget_of_one_token_is_enough(engine: Engine, name: str) -> None:
    assert _read(engine, ONE_TOKEN[name], PROMPT, MORE).isfinite().all()


def test_what_a_fork_reads_leaves_the_original_as_it_was(engine: Engine, policy: Policy) -> None:
    expected = _read(engine, policy, PROMPT, MORE)
    context = engine.new_context(policy)
    engine.prefill(PROMPT, context)
    engine.step([context], MORE[:1])
    fork = context.fork()
    for token in reversed(MORE):
        engine.step([fork], [token])
    found = torch.stack([engine.step([context], [token])[0] for token in MORE[1:]])
    torch.testing.assert_close(found, expected[2:], rtol=1e-4, atol=1e-4)


def test_a_cropped_context_has_forgotten_what_was_chosen(engine: Engine, policy: Policy) -> None:
    context = engine.new_context(policy)
    engine.prefill(PROMPT, context)
    for token in reversed(MORE):
        engine.step([context], [token])
    if policy.needs:  # what was observed cannot be taken back
        assert not context.crop(len(PROMPT))
        return
    assert context.crop(len(PROMPT))
    assert not context.states
    found = torch.stack([engine.step([context], [token])[0] for token in MORE])
    torch.testing.assert_close(found, _read(engine, policy, PROMPT, MORE)[1:], rtol=1e-4, atol=1e-4)


def test_nothing_leaves_memory(engine: Engine, policy: Policy) -> None:
    context = engine.new_context(policy)
    engine.prefill(PROMPT, context)
    engine.settle(context, "turn")
    assert [track.tokens for track in context.tracks] == [len(PROMPT)] * len(context.tracks)


def test_a_step_reads_less_than_full_attention(engine: Engine) -> None:
    def read(policy: Policy | None) -> int:
        context = engine.new_context(policy)
        engine.prefill(PROMPT, context)
        engine.step([context], MORE[:1])
        before = context.bytes_touched
        engine.step([context], MORE[1:2])
        return context.bytes_touched - before

    assert read(None) == 2 * 2 * 77 * 2 * 16 * 4  # layers, KV heads, tokens, key and value, dims, float32
    assert read(SMALL["TwoStage"]) < read(SMALL["TokenSelect"]) < read(None)


@pytest.mark.parametrize("given", [{"keep_tokens": 0}, {"recent": 0}, {"sinks": -1}])
def test_sizes_are_checked(given: dict[str, int]) -> None:
    for kind in BY_TOKENS.values():
        with pytest.raises(ValueError, match=next(iter(given))):
            kind(**given)
